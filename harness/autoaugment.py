"""AutoAugment (Cubuk et al., CVPR 2019) for whole batches: each sample draws its own sub-policy.

Policies are the paper's tables 7 and 9; ranges, signs and filling are those of the code that FOSTER, DRC and the strong
long-tailed recipes ship: grey 128 around moved images, shears bicubic, shifts and rotations nearest, and a random sign for
every operation that has two directions.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from imbcil.harness import image_ops as ops

_LEVELS = 10
_CIFAR10 = """
invert .1 7, contrast .2 6        | rotate .7 2, shift_x .3 9         | sharpness .8 1, sharpness .9 3
shear_y .5 8, shift_y .7 9        | autocontrast .5 8, equalize .9 2  | shear_y .2 7, posterize .3 7
color .4 3, brightness .6 7       | sharpness .3 9, brightness .7 9   | equalize .6 5, equalize .5 1
contrast .6 7, sharpness .6 5     | color .7 7, shift_x .5 8          | equalize .3 7, autocontrast .4 8
shift_y .4 3, sharpness .2 6      | brightness .9 6, color .2 8       | solarize .5 2, invert 0 3
equalize .2 0, autocontrast .6 0  | equalize .2 8, equalize .6 4      | color .9 9, equalize .6 6
autocontrast .8 4, solarize .2 8  | brightness .1 3, color .7 0       | solarize .4 5, autocontrast .9 3
shift_y .9 9, shift_y .7 9        | autocontrast .9 2, solarize .8 3  | equalize .8 8, invert .1 3
shift_y .7 9, autocontrast .9 1
"""
_IMAGENET = """
posterize .4 8, rotate .6 9       | solarize .6 5, autocontrast .6 5  | equalize .8 8, equalize .6 3
posterize .6 7, posterize .6 6    | equalize .4 7, solarize .2 4      | equalize .4 4, rotate .8 8
solarize .6 3, equalize .6 7      | posterize .8 5, equalize 1 2      | rotate .2 3, solarize .6 8
equalize .6 8, posterize .4 6     | rotate .8 8, color .4 0           | rotate .4 9, equalize .6 2
equalize 0 7, equalize .8 8       | invert .6 4, equalize 1 8         | color .6 4, contrast 1 8
rotate .8 8, color 1 2            | color .8 8, solarize .8 7         | sharpness .4 7, invert .6 8
shear_x .6 5, equalize 1 9        | color .4 0, equalize .6 3         | equalize .4 7, solarize .2 4
solarize .6 5, autocontrast .6 5  | invert .6 4, equalize 1 8         | color .6 4, contrast 1 8
equalize .8 8, equalize .6 3
"""


class Operation(NamedTuple):
    """An operation and its strength at level 0 and level 9; `signed` ones go either way with probability 1/2."""

    apply: Callable[[Tensor, Tensor], Tensor]
    weakest: float
    strongest: float
    signed: bool


def _enhance(degenerate: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, strength: ops.blend(degenerate(images), images, 1 + strength)


OPERATIONS: Mapping[str, Operation] = {
    "shear_x": Operation(ops.shear_x, 0.0, 0.3, True),
    "shear_y": Operation(ops.shear_y, 0.0, 0.3, True),
    "shift_x": Operation(ops.shift_x, 0.0, 150 / 331, True),
    "shift_y": Operation(ops.shift_y, 0.0, 150 / 331, True),
    "rotate": Operation(ops.rotate, 0.0, 30.0, True),
    "brightness": Operation(_enhance(ops.black), 0.0, 0.9, True),
    "contrast": Operation(_enhance(ops.mean_grey), 0.0, 0.9, True),
    "color": Operation(_enhance(ops.grey), 0.0, 0.9, True),
    "sharpness": Operation(_enhance(ops.smooth), 0.0, 0.9, True),
    "posterize": Operation(ops.posterize, 8.0, 4.0, False),
    "solarize": Operation(ops.solarize, 256.0, 0.0, False),
    "autocontrast": Operation(lambda images, _: ops.autocontrast(images), 0.0, 0.0, False),
    "equalize": Operation(lambda images, _: ops.equalize(images), 0.0, 0.0, False),
    "invert": Operation(lambda images, _: 255 - images, 0.0, 0.0, False),
}


class Policy(NamedTuple):
    """Sub-policies as tensors [P, 2] over (sub-policy, turn): operation number, probability, signed strength."""

    operation: Tensor
    probability: Tensor
    strength: Tensor


@cache
def policy_table(name: Literal["cifar10", "imagenet"]) -> Policy:
    """The policy `name` of the paper, 25 sub-policies of two turns each."""
    text = {"cifar10": _CIFAR10, "imagenet": _IMAGENET}[name]
    pairs = [pair.split(",") for line in text.strip().splitlines() for pair in line.split("|")]
    words = [[turn.split() for turn in pair] for pair in pairs]
    names = list(OPERATIONS)
    return Policy(
        torch.tensor([[names.index(op) for op, _, _ in pair] for pair in words]),
        torch.tensor([[float(p) for _, p, _ in pair] for pair in words], dtype=torch.float64),
        torch.tensor([[_strength(op, int(level)) for op, _, level in pair] for pair in words]),
    )


def _strength(name: str, level: int) -> float:
    operation = OPERATIONS[name]
    return operation.weakest + (operation.strongest - operation.weakest) * level / (_LEVELS - 1)


def auto_augment(images: Tensor, name: Literal["cifar10", "imagenet"], generator: torch.Generator) -> Tensor:
    """Each of uint8 images [B, H, W, 3] under a random sub-policy of its own; a new tensor of the same shape.

    The draws are made on the CPU, so which samples an operation touches is known without asking the device.
    """
    policy = policy_table(name)
    draws = torch.rand(len(images), 5, generator=generator, dtype=torch.float64)
    choice = (draws[:, 0] * len(policy.operation)).long()
    images = images.clone()
    for turn in range(2):
        wanted = policy.operation[choice, turn]
        happens = draws[:, 1 + turn] < policy.probability[choice, turn]
        sign = torch.where(draws[:, 3 + turn] < 0.5, -1.0, 1.0)
        for number, operation in enumerate(OPERATIONS.values()):
            rows = torch.nonzero(happens & (wanted == number))[:, 0]
            if len(rows) == 0:
                continue
            strength = policy.strength[choice[rows], turn] * (sign[rows] if operation.signed else 1.0)
            chosen = rows.to(images.device, non_blocking=True)
            images.index_copy_(0, chosen, operation.apply(images[chosen], strength))
    return images


_RAND_CUTOUT = (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)  # side in pixels by level, whatever the image's size
_RAND_CUTOUT_COLOUR = (125, 122, 113)


def rand_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Two operations of fifteen a sample of uint8 images [B, H, W, 3], each applied with probability 1/2 at a level
    drawn from 1 to 9.

    The rule and the ranges of the package `randaugment` 1.0.2, which KRT and CSC use; not torchvision's, which always
    applies both at one level. Its fifteen are AutoAugment's fourteen, where rotations only turn counter-clockwise, and a
    small square in one colour (`cutout`).
    """
    draws = torch.rand(len(images), 8, generator=generator, dtype=torch.float64)
    centres = torch.rand(len(images), 2, 2, generator=generator, dtype=torch.float64)
    names = [*OPERATIONS, "cutout"]
    images = images.clone()
    for turn in range(2):
        wanted = (draws[:, turn] * len(names)).long()
        happens = draws[:, 2 + turn] < 0.5
        level = (draws[:, 4 + turn] * (_LEVELS - 1)).long() + 1
        sign = torch.where(draws[:, 6 + turn] < 0.5, -1.0, 1.0)
        for number, name in enumerate(names):
            rows = torch.nonzero(happens & (wanted == number))[:, 0]
            if len(rows) == 0:
                continue
            chosen = rows.to(images.device, non_blocking=True)
            if name == "cutout":
                changed = _coloured_square(images[chosen], level[rows], centres[rows, turn])
            else:
                operation = OPERATIONS[name]
                share = (level[rows] / (_LEVELS - 1)).float()
                strength = operation.weakest + (operation.strongest - operation.weakest) * share
                either_way = operation.signed and name != "rotate"
                changed = operation.apply(images[chosen], strength * (sign[rows] if either_way else 1.0))
            images.index_copy_(0, chosen, changed)
    return images


def _coloured_square(images: Tensor, level: Tensor, centres: Tensor) -> Tensor:
    """A square of the side that belongs to `level` [B] (an odd one loses a pixel), cut off at the border, around the
    pixel at `centres` [B, 2] in 0..1 (uint8 images [B, H, W, 3])."""
    height, width = images.shape[1:3]
    half = torch.tensor(_RAND_CUTOUT)[level].unsqueeze(1) // 2
    middle = (centres * torch.tensor([height, width], dtype=torch.float64)).long()
    first = (middle - half).to(images.device, non_blocking=True)
    behind = (middle + half).to(images.device, non_blocking=True)
    inside = [
        (pixels >= first[:, side, None]) & (pixels < behind[:, side, None])
        for side, pixels in enumerate(torch.arange(n, device=images.device) for n in (height, width))
    ]
    square = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
    return torch.where(square, images.new_tensor(_RAND_CUTOUT_COLOUR), images)
