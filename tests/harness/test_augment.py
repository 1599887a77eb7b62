"""Augmentation of batches: distributions, independence of samples, keyed draws, torchvision and PIL as oracles."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from imbcil.harness import augment as module
from imbcil.harness.augment import augment, normalise, resized_windows
from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.randomness import torch_generator
from imbcil.harness.settings import AugmentSettings

EVERYTHING = AugmentSettings(
    crop="resized", flip=True, brightness=0.3, contrast=0.5, saturation=0.4, autoaugment="cifar10", cutout=8
)


def keyed(*key: object) -> torch.Generator:
    return torch_generator("test", *key)


def noise(n: int, size: int = 32, low: int = 0) -> Tensor:
    return torch.randint(low, 256, (n, size, size, 3), dtype=torch.uint8, generator=keyed("noise", n, size))


def coordinates(n: int, size: int) -> Tensor:
    """The same picture n times; red is 1 + the row, green 1 + the column (0 is left to the border)."""
    line = torch.arange(1, size + 1, dtype=torch.uint8)
    picture = torch.stack([line[:, None].expand(size, size), line[None].expand(size, size)], dim=-1)
    return torch.cat([picture, torch.zeros(size, size, 1, dtype=torch.uint8)], dim=-1).repeat(n, 1, 1, 1)


def chi_square(counts: Tensor) -> float:
    expected = counts.sum() / counts.numel()
    return (((counts - expected) ** 2) / expected).sum().item()


def test_a_padded_crop_is_a_window_of_the_padded_image() -> None:
    images = noise(64)
    out = augment(images, AugmentSettings(crop="pad", pad=4), 32, keyed(1))
    padded = torch.nn.functional.pad(images, (0, 0, 4, 4, 4, 4))
    for image, window in zip(padded, out, strict=True):
        every = (image[top : top + 32, left : left + 32] for top in range(9) for left in range(9))
        assert sum(torch.equal(window, candidate) for candidate in every) == 1


def test_offsets_of_a_padded_crop_are_uniform_and_drawn_per_sample_and_axis() -> None:
    n = 8100
    out = augment(coordinates(n, 10), AugmentSettings(crop="pad", pad=4), 10, keyed(2)).long()
    top, left = (
        out[:, 4, :, 0].amax(1) - 5,
        out[:, :, 4, 1].amax(1) - 5,
    )  # the centre always shows the picture
    assert set(top.tolist()) == set(left.tolist()) == set(range(-4, 5))
    counts = torch.bincount((top + 4) * 9 + left + 4, minlength=81).double()
    assert chi_square(counts) < 80 + 4 * math.sqrt(
        160
    )  # four standard deviations of chi-square with 80 degrees


def test_half_of_the_images_are_flipped_left_to_right() -> None:
    images = noise(4000, 4)
    out = augment(images, AugmentSettings(flip=True), 4, keyed(3))
    same, mirrored = ((out == x).all(dim=3).all(dim=2).all(dim=1) for x in (images, images.flip(2)))
    assert bool((same | mirrored).all())
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))


def test_windows_of_a_resized_crop_keep_scale_and_ratio_and_stay_inside() -> None:
    top, left, height, width = resized_windows((5000, 40, 40), (0.2, 0.6), (3 / 4, 4 / 3), keyed(4)).T
    assert bool(((top >= 0) & (left >= 0) & (top + height <= 40) & (left + width <= 40)).all())
    area, ratio = height * width / 1600, width / height
    assert area.min() >= 0.2 - 0.03 and area.max() <= 0.6 + 0.03  # whole pixels
    assert ratio.min() >= 3 / 4 - 0.06 and ratio.max() <= 4 / 3 + 0.06
    assert area.mean().item() == pytest.approx(0.4, abs=0.01)
    assert ratio.log().mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("shape", [(40, 40), (24, 40)])
def test_windows_of_a_resized_crop_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    scale, ratio, n = (0.08, 1.0), (3 / 4, 4 / 3), 3000
    ours = resized_windows((n, *shape), scale, ratio, keyed(5)).double().numpy()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        image = torch.zeros(3, *shape)
        draws = [transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)]
    reference = np.array(draws, dtype=np.float64)
    for axis in range(4):  # Kolmogorov-Smirnov by hand; 1.95 / sqrt(n / 2) is the 0.1 % limit
        grid = np.arange(-1, 41)
        gap = [np.mean(ours[:, axis] <= x) - np.mean(reference[:, axis] <= x) for x in grid]
        assert np.abs(gap).max() < 1.95 / math.sqrt(n / 2)


@pytest.mark.parametrize(("shape", "expected"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_without_a_fitting_window_the_largest_central_one_is_taken(
    shape: tuple[int, int], expected: tuple[int, ...]
) -> None:
    windows = resized_windows((3, *shape), (1.0, 1.0), (3 / 4, 4 / 3), keyed(6))
    top, left, height, width = transforms.RandomResizedCrop.get_params(
        torch.zeros(3, *shape), [1.0, 1.0], [3 / 4, 4 / 3]
    )
    assert (top, left, height, width) == expected
    assert windows.tolist() == [[float(v) for v in expected]] * 3


def test_a_resized_crop_shows_pils_resize_of_a_window_of_the_padded_image() -> None:
    images = noise(40)
    settings = AugmentSettings(crop="resized", pad=4)
    ours = augment(images, settings, 32, keyed(7))
    windows = resized_windows((40, 40, 40), settings.scale, settings.ratio, keyed(7)).int().tolist()
    for image, (top, left, height, width), got in zip(images, windows, ours, strict=True):
        padded = Image.fromarray(np.pad(image.numpy(), ((4, 4), (4, 4), (0, 0))))
        want = padded.crop((left, top, left + width, top + height)).resize(
            (32, 32), Image.Resampling.BILINEAR
        )
        assert np.abs(np.asarray(want).astype(int) - got.numpy().astype(int)).max() <= 2


def test_brightness_is_a_factor_uniform_around_one() -> None:
    images = torch.full((4000, 2, 2, 3), 100, dtype=torch.uint8)
    out = augment(images, AugmentSettings(brightness=63 / 255), 2, keyed(8))
    assert bool((out == out[:, :1, :1, :1]).all())
    factor = out[:, 0, 0, 0].double() / 100
    assert (factor.min().item(), factor.max().item()) == pytest.approx(
        (1 - 63 / 255, 1 + 63 / 255), abs=0.011
    )
    assert factor.std().item() == pytest.approx(2 * 63 / 255 / math.sqrt(12), rel=0.05)


def test_a_strength_above_one_never_gives_a_negative_factor() -> None:
    images = torch.full((1000, 1, 1, 3), 100, dtype=torch.uint8)
    factor = augment(images, AugmentSettings(brightness=1.5), 1, keyed(9))[:, 0, 0, 0].double() / 100
    assert factor.mean().item() == pytest.approx(1.25, abs=0.1)  # uniform in [0, 2.5]


def test_jitters_are_applied_in_both_orders() -> None:
    images = noise(400, 8)
    settings = AugmentSettings(brightness=0.6, contrast=0.6)
    out = augment(images, settings, 8, keyed(10))
    generator = keyed(10)
    draws = torch.rand(2, 400, 2, generator=generator, dtype=torch.float64)
    factor = 0.4 + 1.2 * draws[0]
    seen = {"brightness first": 0, "contrast first": 0}
    for image, (bright, contrast), got in zip(images, factor.tolist(), out, strict=True):
        picture = Image.fromarray(image.numpy())
        light, strong = (
            transforms.functional.adjust_brightness,
            transforms.functional.adjust_contrast,
        )
        first = np.asarray(strong(light(picture, bright), contrast))
        second = np.asarray(light(strong(picture, contrast), bright))
        if np.array_equal(first, second):
            continue
        name = "brightness first" if np.array_equal(got.numpy(), first) else "contrast first"
        assert np.array_equal(got.numpy(), first if name == "brightness first" else second)
        seen[name] += 1
    assert min(seen.values()) > 120


def test_cutout_blackens_one_square_around_a_uniform_centre() -> None:
    size, side, n = 12, 4, 6000
    out = augment(noise(n, size, low=1), AugmentSettings(cutout=side), size, keyed(11))
    black = (out == 0).all(dim=3)
    rows, columns = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.sum((1, 2)), rows * columns)  # one full rectangle
    assert (rows.max(), columns.max()) == (side, side)
    # a centre in row r covers rows r - 2 to r + 1: of 12 centres those in rows 0, 1 and 11 are cut off at the border
    wanted = torch.tensor([0, 0, 1, 2, 9]) / 12
    assert torch.allclose(torch.bincount(rows, minlength=5) / n, wanted, atol=0.03)
    assert torch.allclose(torch.bincount(columns, minlength=5) / n, wanted, atol=0.03)
    ends = (
        black.any(2).double().mean(0)[[0, -1]]
    )  # row 0 is reached from the centres 0 to 2, row 11 from 10 and 11
    assert ends.tolist() == pytest.approx([3 / 12, 2 / 12], abs=0.025)


@pytest.mark.parametrize("shape", [(32, 32), (28, 28), (40, 36), (33, 47), (31, 50)])
def test_the_test_view_is_torchvisions_centre_crop(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8, generator=keyed("view"))
    want = transforms.CenterCrop(32)(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(module.test_view(images, 32), want)


def test_the_test_view_resizes_the_short_side_as_pil_does() -> None:
    images = noise(3, 60)[:, :, :45]
    got = module.test_view(images, 28, resize=32)
    recipe = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    for image, ours in zip(images, got, strict=True):
        want = np.asarray(recipe(Image.fromarray(image.numpy()))).astype(int)
        assert np.abs(want - ours.numpy().astype(int)).max() <= 2


def test_lt_cils_test_view_is_the_image_itself() -> None:
    images = noise(4)
    assert torch.equal(module.test_view(images, 32), images)


def test_normalised_images_are_torchvisions_in_channels_last() -> None:
    images, mean, std = noise(5), (0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)
    got = normalise(images, mean, std)
    tensors = torch.stack([transforms.ToTensor()(image.numpy()) for image in images])
    torch.testing.assert_close(got.contiguous(), transforms.Normalize(mean, std)(tensors), atol=1e-5, rtol=0)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
def test_the_same_key_gives_the_same_batch_and_another_key_another(crop: str) -> None:
    images = noise(32)
    settings = EVERYTHING.model_copy(update={"crop": crop})
    first = augment(images, settings, 32, keyed("a"))
    torch.rand(7)  # the global generator has no say
    assert torch.equal(first, augment(images, settings, 32, keyed("a")))
    assert not torch.equal(first, augment(images, settings, 32, keyed("b")))


def test_a_sample_does_not_depend_on_its_neighbours_pixels() -> None:
    images, other = noise(32), noise(32)
    other[1:] = 255 - other[1:]
    alone = augment(other, EVERYTHING, 32, keyed("c"))
    assert torch.equal(augment(images, EVERYTHING, 32, keyed("c"))[0], alone[0])


def test_copies_of_one_image_in_a_batch_come_out_different() -> None:
    out = augment(noise(1).repeat(64, 1, 1, 1), EVERYTHING, 32, keyed("d"))
    assert len(torch.unique(out.flatten(1), dim=0)) == 64


def test_images_come_out_as_bytes_of_the_training_size_and_the_input_stays() -> None:
    for crop in ("none", "pad", "resized"):
        images = noise(8, 36)
        before = images.clone()
        out = augment(images, EVERYTHING.model_copy(update={"crop": crop}), 32, keyed("e"))
        assert out.dtype == torch.uint8
        assert out.shape == (8, 32, 32, 3)
        assert torch.equal(images, before)


def test_a_batch_of_one_is_augmented_too() -> None:
    assert augment(noise(1), EVERYTHING, 32, keyed("f")).shape == (1, 32, 32, 3)


def test_an_image_too_small_for_its_crop_is_refused_with_what_to_do() -> None:
    with pytest.raises(BadInput, match=r"22 x 22 pixels .* training size 32; raise augment\.pad"):
        augment(noise(2, 20), AugmentSettings(crop="pad", pad=1), 32, keyed("g"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"crop": "random"}, r"augment: crop = 'random'"),
        ({"scale": [1.0, 0.08]}, r"scale must rise .* \[1\.0, 0\.08\]"),
        ({"cut": 16}, r"unknown key 'cut'; did you mean cutout"),
        ({"brightness": -0.1}, r"brightness = -0\.1"),
    ],
)
def test_wrong_settings_are_refused_by_name(data: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        validated(AugmentSettings, data, "augment")


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("policy", ["none", "cifar10", "imagenet"])
def test_augmentation_never_waits_for_a_value_from_the_device(crop: str, policy: str) -> None:
    settings = EVERYTHING.model_copy(update={"crop": crop, "autoaugment": policy})
    images = torch.empty(
        512, 32, 32, 3, dtype=torch.uint8, device="meta"
    )  # has no values: reading one is an error
    out = normalise(augment(images, settings, 32, keyed("meta")), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert (out.device.type, out.shape) == ("meta", (512, 3, 32, 32))
