"""Operations on batches of uint8 images [B, H, W, 3], each with arguments per sample, rounded as PIL rounds."""

import torch
from torch import Tensor


def resample(images: Tensor, windows: Tensor, height: int, width: int) -> Tensor:
    """Cut a window out of each image and resize it, antialiased bilinear: uint8 [B, height, width, 3].

    windows: float [B, 4] of top, left, height, width in whole pixels, inside the image.
    As PIL does it: crop first (no pixel outside of the window has a say), a triangle filter as wide as the scale,
    columns before rows, bytes in between. Two batched products: W_y (x W_x), one matrix per sample and axis.
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
    inside = (place > 0) & (place < length[:, None, None])
    share = (1 - (place - centre).abs() / support).clamp_(min=0) * inside
    return share / share.sum(dim=2, keepdim=True)


def greyscale(images: Tensor) -> Tensor:
    """ITU-R 601 luma in PIL's integer arithmetic: uint8 [B, H, W, 3] -> uint8 [B, H, W]."""
    weights = torch.tensor([19595, 38470, 7471], device=images.device, dtype=torch.int32)
    return ((images.to(torch.int32) * weights).sum(-1) + 0x8000).bitwise_right_shift(16).to(torch.uint8)


def blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """degenerate + factor * (image - degenerate), clipped and cut to a byte as PIL does. factors [B]."""
    base = degenerate.float()
    mixed = base + factors.view(-1, 1, 1, 1) * (images.float() - base)
    return mixed.clamp_(0, 255).to(torch.uint8)
