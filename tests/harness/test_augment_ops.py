"""Operations on batches of images against PIL and torchvision, image by image."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as oracle
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from imbcil.harness import image_ops as ops

N = 48


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def pictures(size: int = 32, n: int = N) -> Tensor:
    """Smooth pictures of any contrast, the first one of a single colour."""
    coarse = torch.rand(n, 3, 5, 5, generator=generator())
    contrast = torch.rand(n, 1, 1, 1, generator=generator())
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    images = (255 * (contrast * smooth + (1 - contrast) * coarse.mean((1, 2, 3), keepdim=True))).to(
        torch.uint8
    )
    images[0] = 77
    return images.permute(0, 2, 3, 1).contiguous()


def noise(size: int = 32, n: int = N) -> Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator())


def strengths(low: float, high: float, n: int = N) -> Tensor:
    return torch.linspace(low, high, n)


def one_by_one(images: Tensor, change: Callable[[Image.Image, float], Image.Image], by: Tensor) -> Tensor:
    """The oracle: PIL on each image in turn."""
    out = [
        np.asarray(change(Image.fromarray(image.numpy()), b.item()))
        for image, b in zip(images, by, strict=True)
    ]
    return torch.from_numpy(np.stack(out))


def affine(terms: Callable[[float], tuple[float, ...]], how: Image.Resampling) -> Callable[..., Image.Image]:
    return lambda image, by: image.transform(
        image.size, Image.Transform.AFFINE, terms(by), how, fillcolor=(128, 128, 128)
    )


NEAREST, BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
EXACT = {
    "brightness": (
        lambda x, f: ops.blend(ops.black(x), x, f),
        lambda i, f: ImageEnhance.Brightness(i).enhance(f),
        0,
        2,
    ),
    "contrast": (
        lambda x, f: ops.blend(ops.mean_grey(x), x, f),
        lambda i, f: ImageEnhance.Contrast(i).enhance(f),
        0,
        2,
    ),
    "color": (lambda x, f: ops.blend(ops.grey(x), x, f), lambda i, f: ImageEnhance.Color(i).enhance(f), 0, 2),
    "sharpness": (
        lambda x, f: ops.blend(ops.smooth(x), x, f),
        lambda i, f: ImageEnhance.Sharpness(i).enhance(f),
        0,
        2,
    ),
    "posterize": (ops.posterize, lambda i, b: ImageOps.posterize(i, round(b)), 4, 8),
    "solarize": (ops.solarize, ImageOps.solarize, 0, 256),
    "autocontrast": (lambda x, _: ops.autocontrast(x), lambda i, _: ImageOps.autocontrast(i), 0, 0),
    "equalize": (lambda x, _: ops.equalize(x), lambda i, _: ImageOps.equalize(i), 0, 0),
    "shift_x": (ops.shift_x, affine(lambda s: (1, 0, s * 32, 0, 1, 0), NEAREST), -0.46, 0.45),
    "shift_y": (ops.shift_y, affine(lambda s: (1, 0, 0, 0, 1, s * 32), NEAREST), -0.46, 0.45),
    "rotate": (ops.rotate, lambda i, d: i.rotate(d, fillcolor=(128, 128, 128)), -30, 30),
    "shear_x": (ops.shear_x, affine(lambda s: (1, s, 0, 0, 1, 0), BICUBIC), -0.3, 0.3),
    "shear_y": (ops.shear_y, affine(lambda s: (1, 0, 0, s, 1, 0), BICUBIC), -0.3, 0.3),
}


@pytest.mark.parametrize("images", [pictures(), noise()], ids=["pictures", "noise"])
@pytest.mark.parametrize("name", EXACT)
def test_an_operation_changes_each_image_as_pil_does(name: str, images: Tensor) -> None:
    ours, reference, low, high = EXACT[name]
    by = strengths(low, high)
    difference = ours(images, by).int() - one_by_one(images, reference, by).int()
    # float32 instead of float64 arithmetic may tip a value that lies on the edge between two bytes
    assert difference.abs().max() <= (1 if name.startswith("shear") else 0)
    assert (difference != 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (lambda x: ops.posterize(x, torch.full((N,), 5.0)), lambda x: oracle.posterize(x, 5)),
        (lambda x: ops.solarize(x, torch.full((N,), 100.0)), lambda x: oracle.solarize(x, 100.0)),
        (lambda x: ops.equalize(x), oracle.equalize),
        (lambda x: 255 - x, oracle.invert),
    ],
    ids=["posterize", "solarize", "equalize", "invert"],
)
def test_an_operation_on_bytes_agrees_with_torchvision(ours: Callable, reference: Callable) -> None:
    images = noise()
    assert torch.equal(ours(images), reference(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [32, 20])
def test_a_window_is_resized_as_pil_resizes_its_crop(size: int) -> None:
    images = noise(40)
    corner = torch.randint(0, 20, (N, 2), generator=generator())
    extent = torch.randint(3, 21, (N, 2), generator=generator())
    windows = torch.cat([corner, extent], dim=1)
    windows[:2] = torch.tensor([[0, 0, 40, 40], [3, 1, 32, 37]])
    ours = ops.resample(images, windows.float(), size, size)
    want = []
    for image, (top, left, height, width) in zip(images, windows.tolist(), strict=True):
        cut = oracle.resized_crop(Image.fromarray(image.numpy()), top, left, height, width, [size, size])
        want.append(np.asarray(cut))
    difference = (ours.int() - torch.from_numpy(np.stack(want)).int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.05  # ties of rounding, which PIL breaks in fixed point


def test_a_window_as_large_as_the_output_is_a_plain_crop() -> None:
    images = noise(40)
    windows = torch.tensor([[3.0, 5.0, 32.0, 32.0]]).expand(N, 4)
    assert torch.equal(ops.resample(images, windows, 32, 32), images[:, 3:35, 5:37])


def test_pixels_outside_of_a_window_have_no_say() -> None:
    images = noise(40)
    other = images.clone()
    other[:, :5], other[:, 25:], other[:, :, :7], other[:, :, 30:] = 0, 255, 255, 0
    windows = torch.tensor([[5.0, 7.0, 20.0, 23.0]]).expand(N, 4)
    assert torch.equal(ops.resample(images, windows, 32, 32), ops.resample(other, windows, 32, 32))
