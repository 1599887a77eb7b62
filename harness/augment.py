"""Augmentation of whole batches on their device: uint8 [B, H, W, 3] in, uint8 [B, size, size, 3] out.

Every sample has draws of its own. All draws of a batch come from one CPU generator, keyed by the caller, and are moved
to the device as small tensors: the result is a function of (images, settings, size, generator's seed) alone, on any
device. Values are rounded as PIL rounds them, so that a step may follow another in bytes, as in the sources' pipelines;
`normalise` makes the network's float input in the end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from imbcil.harness import image_ops as ops
from imbcil.harness.autoaugment import auto_augment, rand_augment
from imbcil.harness.base.errors import BadInput
from imbcil.harness.settings import AugmentSettings

_TRIES = 10  # torchvision's number of tries for a crop that fits
_DEGENERATE = {"brightness": ops.black, "contrast": ops.mean_grey, "saturation": ops.grey}


def augment(images: Tensor, settings: AugmentSettings, size: int, generator: torch.Generator) -> Tensor:
    """Augmented copies, uint8 [B, size, size, 3] on the device of `images` (uint8 [B, H, W, 3]).

    `generator` is a CPU generator keyed by the step; nothing else decides the draws.
    Raises BadInput where images with their border are smaller than a window of `size`.
    """
    images = _cropped(images, settings, size, generator)
    if settings.patch:
        images = _patched(images, settings.patch, generator)
    if settings.randaugment:
        images = rand_augment(images, generator)
    if settings.flip:
        images = _flipped(images, generator)
    images = _jittered(images, settings, generator)
    if settings.autoaugment != "none":
        images = auto_augment(images, settings.autoaugment, generator)
    if settings.cutout:
        images = _cut_out(images, settings.cutout, generator)
    return images


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std, channel by channel: uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in channels_last."""
    batch, height, width, _ = images.shape
    at_rest = torch.tensor([*mean, *std], dtype=torch.float64)
    factor, shift = 1 / (255 * at_rest[3:]), -at_rest[:3] / at_rest[3:]
    # Rows of W * 3 numbers instead of 3 at a time: four times faster on CPU.
    rows = torch.stack([factor, shift]).repeat(1, width).float().to(images.device, non_blocking=True)
    flat = images.reshape(batch, height, width * 3).to(torch.float32)
    return flat.mul_(rows[0]).add_(rows[1]).view(batch, height, width, 3).permute(0, 3, 1, 2)


def test_view(images: Tensor, size: int, resize: int | None = None) -> Tensor:
    """What evaluation sees: uint8 [B, size, size, 3], no randomness.

    `resize` first brings the shorter side to that many pixels (antialiased bilinear); then the centre is cut out.
    A side shorter than `size` gets a black border, so LT-CIL's Pad(4) + CenterCrop(32) is this view at size 32.
    """
    if resize is not None and min(images.shape[1:3]) != resize:
        images = _resized(images, resize)
    return _centre(images, size)


def _cropped(images: Tensor, settings: AugmentSettings, size: int, generator: torch.Generator) -> Tensor:
    if settings.crop == "none":
        return _centre(images, size)
    pad = settings.pad
    padded = functional.pad(images, (0, 0, pad, pad, pad, pad))
    if settings.crop == "pad":
        return _pad_crop(padded, size, generator)
    windows = resized_windows(padded.shape[:3], settings.scale, settings.ratio, generator)
    return ops.resample(padded, windows.to(images.device, non_blocking=True), size, size)


def _pad_crop(padded: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """torchvision's RandomCrop after its padding: offsets uniform over all windows of the padded image."""
    batch, height, width, _ = padded.shape
    if min(height, width) < size:
        raise BadInput(
            f"augment.pad: images that are {height} x {width} pixels with their border are smaller than the "
            f"training size {size}; raise augment.pad or lower data.size."
        )
    room = torch.tensor([height - size + 1, width - size + 1], dtype=torch.float64)
    offsets = (torch.rand(batch, 2, generator=generator, dtype=torch.float64) * room).long()
    top, left = offsets.to(padded.device, non_blocking=True).split(1, dim=1)
    # All windows of a row as a view [B, height, n_left, size * 3]: one gather of contiguous bytes takes them.
    windows = padded.reshape(batch, height, width * 3).unfold(2, size * 3, 3)
    sample = torch.arange(batch, device=padded.device)[:, None]
    return windows[sample, top + torch.arange(size, device=padded.device), left].view(batch, size, size, 3)


def resized_windows(
    shape: Sequence[int], scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Windows of RandomResizedCrop for images of shape (B, H, W): float32 [B, 4] of top, left, height, width.

    As torchvision draws them: area and log aspect uniform, ten tries for a window that fits, else the largest centred
    one whose aspect is in range.
    """
    batch, height, width = shape
    draws = torch.rand(batch, 2 * _TRIES + 2, generator=generator, dtype=torch.float64)
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, :_TRIES])
    logs = torch.tensor(ratio, dtype=torch.float64).log()
    ratios = (logs[0] + (logs[1] - logs[0]) * draws[:, _TRIES : 2 * _TRIES]).exp()
    heights, widths = (areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    h, w = heights.gather(1, first), widths.gather(1, first)
    room = torch.cat([height - h + 1, width - w + 1], dim=1)
    corner = (draws[:, -2:] * room).floor()
    windows = torch.cat([corner, h, w], dim=1)
    fallback = torch.tensor(_central_window(height, width, ratio), dtype=torch.float64)
    return torch.where(fits.any(dim=1, keepdim=True), windows, fallback).float()


def _central_window(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    flip = torch.nonzero(torch.rand(len(images), generator=generator) < 0.5)[:, 0]
    chosen = flip.to(images.device, non_blocking=True)
    return images.index_copy(0, chosen, images[chosen].flip(2))


def _jittered(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """torchvision's ColorJitter: each factor uniform, each sample in an order of its own."""
    strengths = {name: getattr(settings, name) for name in _DEGENERATE}
    names = [name for name, strength in strengths.items() if strength > 0]
    if not names:
        return images
    strength = torch.tensor([strengths[name] for name in names], dtype=torch.float64)
    draws = torch.rand(2, len(images), len(names), generator=generator, dtype=torch.float64)
    low = (1 - strength).clamp(min=0)
    factors = (low + (1 + strength - low) * draws[0]).float()
    order = draws[1].argsort(dim=1)  # [B, n]: which jitter each sample gets in turn
    images = images.clone()
    for turn in range(len(names)):
        for column, name in enumerate(names):
            rows = torch.nonzero(order[:, turn] == column)[:, 0]
            chosen, factor = rows.to(images.device), factors[rows, column].to(images.device)
            images.index_copy_(
                0, chosen, ops.blend(_DEGENERATE[name](images[chosen]), images[chosen], factor)
            )
    return images


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A black square of `side` pixels, cut off at the border, around a centre uniform over the image's pixels."""
    return images.masked_fill(_window(images, (side, side), generator)[..., None], 0)


def _patched(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A rectangle of `share` of each side in one random colour a sample, around a uniform centre: ASL's CutoutPIL. PIL
    paints the far edges too, so that the centre is in the middle and each side odd."""
    height, width = (int(share * side + 0.5) // 2 * 2 + 1 for side in images.shape[1:3])
    inside = _window(images, (height, width), generator)
    colour = torch.randint(256, (len(images), 1, 1, 3), generator=generator, dtype=torch.uint8)
    return torch.where(inside[..., None], colour.to(images.device, non_blocking=True), images)


def _window(images: Tensor, sides: tuple[int, int], generator: torch.Generator) -> Tensor:
    """bool [B, H, W]: a rectangle of `sides` pixels around a centre uniform over the image's pixels."""
    batch, height, width, _ = images.shape
    room = torch.tensor([height, width], dtype=torch.float64)
    centres = (torch.rand(batch, 2, generator=generator, dtype=torch.float64) * room).long()
    halves = torch.tensor([side // 2 for side in sides])
    top, left = (centres - halves).to(images.device, non_blocking=True).split(1, dim=1)
    inside = [
        (pixels >= first) & (pixels < first + side)
        for first, side, pixels in (
            (top, sides[0], torch.arange(height, device=images.device)),
            (left, sides[1], torch.arange(width, device=images.device)),
        )
    ]
    both: Tensor = inside[0][:, :, None] & inside[1][:, None, :]
    return both


def _centre(images: Tensor, size: int) -> Tensor:
    """torchvision's CenterCrop(size): missing rows and columns are black, half of them (rounded) before the image."""
    height, width = images.shape[1:3]
    if height < size or width < size:
        short = (max(0, size - width), max(0, size - height))
        border = (short[0] // 2, (short[0] + 1) // 2, short[1] // 2, (short[1] + 1) // 2)
        images = functional.pad(images, (0, 0, *border))
        height, width = images.shape[1:3]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return images[:, top : top + size, left : left + size]


def _resized(images: Tensor, short_side: int) -> Tensor:
    batch, height, width, _ = images.shape
    target = [max(short_side, int(short_side * side / min(height, width))) for side in (height, width)]
    whole = torch.tensor([0.0, 0.0, height, width], device=images.device).expand(batch, 4)
    return ops.resample(images, whole, target[0], target[1])
