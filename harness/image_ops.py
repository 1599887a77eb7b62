"""Operations on batches of uint8 images [B, H, W, 3], with arguments per sample [B], rounded and cut off as PIL does.

Each returns uint8 images of the same shape unless it says otherwise. None waits for the device. Arguments may lie on
the CPU: what follows from them alone is worked out there, in float64, and moved.
"""

from math import pi

import torch
from torch import Tensor

GREY = 128  # what shows where a moved image leaves the frame


def resample(images: Tensor, windows: Tensor, height: int, width: int) -> Tensor:
    """Cut a window out of each image and resize it, antialiased bilinear: uint8 [B, height, width, 3].

    windows: float [B, 4] of top, left, height, width in whole pixels, inside the image.
    As PIL does it: crop first (no pixel outside of the window has a say), a triangle filter as wide as the scale,
    columns before rows, bytes in between. Two batched products: W_y (x W_x), one matrix per sample and axis.
    Equal to PIL up to ties of rounding: one grey level per axis.
    """
    batch, n_rows, n_cols, _ = images.shape
    across = _weights(windows[:, 1], windows[:, 3], n_cols, width)
    down = _weights(windows[:, 0], windows[:, 2], n_rows, height)
    planes = images.permute(0, 3, 1, 2).reshape(batch, 3 * n_rows, n_cols).float()
    planes = torch.bmm(planes, across.transpose(1, 2)).add_(0.5).floor_().view(batch, 3, n_rows, width)
    planes = planes.transpose(1, 2).reshape(batch, n_rows, 3 * width)
    resized = torch.bmm(down, planes).add_(0.5).to(torch.uint8)
    return resized.view(batch, height, 3, width).transpose(2, 3).contiguous()


def _weights(start: Tensor, length: Tensor, n_in: int, n_out: int) -> Tensor:
    """Share of input pixel i in output pixel o, float32 [B, n_out, n_in], for windows [start, start + length)."""
    scale = (length / n_out)[:, None, None]
    support = scale.clamp(min=1)
    centre = (torch.arange(n_out, device=start.device)[None, :, None] + 0.5) * scale
    place = torch.arange(n_in, device=start.device)[None, None, :] + 0.5 - start[:, None, None]
    outside = (place < 0) | (place > length[:, None, None])
    share = (place - centre).abs_().div_(-support).add_(1).clamp_(min=0).masked_fill_(outside, 0)
    return share.div_(share.sum(dim=2, keepdim=True))


def blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """degenerate + factor * (image - degenerate): 0 gives the degenerate, 1 the image, 2 exaggerates. factors [B]."""
    base = degenerate.float()
    mixed = base + _beside(factors, images) * (images.float() - base)
    return mixed.clamp_(0, 255).to(torch.uint8)


def _beside(values: Tensor, images: Tensor) -> Tensor:
    """Values [B] as [B, 1, 1, 1] on the device of the images."""
    return values.view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def black(images: Tensor) -> Tensor:
    """What no brightness leaves: uint8 []."""
    return torch.zeros((), dtype=torch.uint8, device=images.device)


def grey(images: Tensor) -> Tensor:
    """What no colour leaves, ITU-R 601 luma in PIL's integer arithmetic: uint8 [B, H, W, 1]."""
    red, green, blue = images.to(torch.int32).unbind(-1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000).bitwise_right_shift(16)
    return luma.to(torch.uint8)[..., None]


def mean_grey(images: Tensor) -> Tensor:
    """What no contrast leaves, the mean luma of an image: uint8 [B, 1, 1, 1]."""
    return (grey(images).float().mean((1, 2), keepdim=True) + 0.5).to(torch.uint8)


def smooth(images: Tensor) -> Tensor:
    """What no sharpness leaves: each pixel (weight 5) averaged with its eight neighbours; the border stays."""
    values = images.to(torch.int32)
    columns = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]
    out = images.clone()
    out[:, 1:-1, 1:-1] = ((total + 6) // 13).to(torch.uint8)  # + 6 of 13: rounded, there are no ties
    return out


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits, a number that is rounded to a whole one. bits [B]."""
    lost = _beside((8 - bits.round()).to(torch.uint8), images)
    return images >> lost << lost


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from the threshold on. threshold [B] in 0 to 256."""
    return torch.where(images < _beside(threshold, images), images, 255 - images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel so that its darkest value becomes 0 and its lightest 255."""
    exact = torch.float32 if images.device.type == "mps" else torch.float64  # Apple's GPUs know no float64
    low = images.amin((1, 2), keepdim=True).to(exact)
    high = images.amax((1, 2), keepdim=True).to(exact)
    scale = torch.full_like(high, 255) / (high - low).clamp(
        min=1
    )  # 255 / tensor would multiply by the reciprocal
    stretched = (images * scale - low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor) -> Tensor:
    """Flatten each channel's histogram; channels of one value, or too small for 255 steps, stay."""
    batch, height, width, _ = images.shape
    values = images.reshape(batch, height * width, 3).transpose(1, 2).long()  # [B, 3, HW]
    counts = torch.zeros(batch, 3, 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    of_lightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (height * width - of_lightest) // 255  # [B, 3, 1]
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(2, values).to(torch.uint8).transpose(1, 2).reshape(images.shape)


def shift_x(images: Tensor, share: Tensor) -> Tensor:
    """Move to the left by a share of the width (negative: to the right), nearest pixel. share [B]."""
    zero, one = torch.zeros_like(share), torch.ones_like(share)
    return _affine(images, (one, zero, share * images.shape[2], zero, one, zero))


def shift_y(images: Tensor, share: Tensor) -> Tensor:
    """Move up by a share of the height (negative: down), nearest pixel. share [B]."""
    zero, one = torch.zeros_like(share), torch.ones_like(share)
    return _affine(images, (one, zero, zero, zero, one, share * images.shape[1]))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre, nearest pixel. degrees [B]."""
    angle = -degrees.double() * (pi / 180)
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[2] / 2, images.shape[1] / 2
    return _affine(images, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))


def _affine(images: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Output pixel (x, y) shows input pixel (a x + b y + c, d x + e y + f), pixel centres at halves; else grey.

    In PIL's fixed-point arithmetic with 16 fractional bits. matrix: a to f, each [B].
    """
    batch, height, width, _ = images.shape
    y = torch.arange(height, device=images.device)[None, :, None]
    x = torch.arange(width, device=images.device)[None, None, :]
    columns, rows = (
        (start + x * per_x + y * per_y) >> 16
        for per_x, per_y, start in (_fixed(images, *matrix[:3]), _fixed(images, *matrix[3:]))
    )
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    sample = torch.arange(batch, device=images.device)[:, None]
    moved = images.reshape(batch, height * width, 3)[sample, place.flatten(1)]
    return moved.view(images.shape).masked_fill_(~inside[..., None], GREY)


def _fixed(images: Tensor, a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
    """a, b and the first pixel's c + a / 2 + b / 2 in fixed point, each [B, 1, 1] int64 beside the images."""
    values = torch.stack([a, b, c + a / 2 + b / 2]).double()
    fixed = (values * 65536 + 0.5).floor().long()
    return list(fixed[:, :, None, None].to(images.device, non_blocking=True))


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Row y (centre at y + 1/2) moves left by slope * (y + 1/2) pixels, bicubic; grey comes in. slope [B]."""
    _, height, width, _ = images.shape
    row = torch.arange(height)[None, :, None] + 0.5
    place = torch.arange(width) + 0.5 + slope.double().view(-1, 1, 1) * row  # [B, H, W]
    left = (place - 0.5).floor()
    outside = ((place < 0) | (place >= width)).to(images.device, non_blocking=True)
    part = (place - 0.5 - left)[..., None].float().to(images.device, non_blocking=True)
    left = left.long().to(images.device, non_blocking=True)
    taps = [_at_column(images, left + offset) for offset in (-1, 0, 1, 2)]
    linear, square, cube = (
        taps[2] - taps[0],
        2 * (taps[0] - taps[1]) + taps[2] - taps[3],
        taps[1] - taps[0] + taps[3] - taps[2],
    )
    value = taps[1] + part * (linear + part * (square + part * cube))
    return value.clamp_(0, 255).to(torch.uint8).masked_fill_(outside[..., None], GREY)


def _at_column(images: Tensor, columns: Tensor) -> Tensor:
    """Values at columns [B, H, W] of the same rows, the edge repeated: float32 [B, H, W, 3]."""
    columns = columns.clamp(0, images.shape[2] - 1)[..., None].expand(-1, -1, -1, 3)
    return images.gather(2, columns).float()


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Column x moves up by slope * (x + 1/2) pixels, bicubic; grey comes in. slope [B]."""
    return shear_x(images.transpose(1, 2), slope).transpose(1, 2)
