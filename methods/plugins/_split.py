"""Weights in two parts, W = W_g + tail: what MORE makes of a convolution or a linear layer while it trains."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from imbcil.harness.network.network import Network

Mapping = Literal["matrix", "kernel"]
Start = Literal["kaiming", "normal", "both"]
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv2d,), "linear": (nn.Linear,), "both": (nn.Conv2d, nn.Linear)
}  # fmt: skip


def factor_shapes(
    shape: torch.Size, ratio: float, mapping: Mapping
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of B and A for a weight [out, in, ...].

    "matrix": the kernel is [out, in kh kw] and r = max(1, round(ratio min(out, in kh kw))). "kernel": A is
    [r kh, in kw] and B [out kh, r kh], viewed as the kernel, with r = max(1, round(ratio min(out, in))).
    """
    rows, columns = shape[0], math.prod(shape[1:])
    if mapping == "matrix" or len(shape) < 4:
        rank = max(1, round(ratio * min(rows, columns)))
        return (rows, rank), (rank, columns)
    height, width = shape[2], shape[3]
    rank = max(1, round(ratio * min(shape[0], shape[1])))
    return (rows * height, rank * height), (rank * height, shape[1] * width)


class LowRank(nn.Module):
    """scale * B A in the shape of a weight; zero at first."""

    def __init__(self, shape: torch.Size, ratio: float, mapping: Mapping, scale: float) -> None:
        super().__init__()
        left, right = factor_shapes(shape, ratio, mapping)
        self.b = nn.Parameter(torch.zeros(left))
        self.a = nn.Parameter(torch.zeros(right))
        self.shape, self.scale = shape, scale

    def forward(self) -> Tensor:
        return self.scale * (self.b @ self.a).view(self.shape)

    @torch.no_grad()
    def draw(self, start: Start, generator: torch.Generator) -> None:
        """ "kaiming": A uniform within 1 / sqrt(columns), B zero; "normal": A from N(0, 0.02^2), B zero; "both": A and
        B uniform, so that the part starts away from zero."""
        for value, drawn in ((self.a, True), (self.b, start == "both")):
            fresh = torch.zeros(value.shape)
            if drawn and start == "normal":
                fresh.normal_(0.0, 0.02, generator=generator)
            elif drawn:
                bound = 1 / math.sqrt(value.shape[1])
                fresh.uniform_(-bound, bound, generator=generator)
            value.copy_(fresh)

    @torch.no_grad()
    def take(self, update: Tensor) -> None:
        """The best approximation of an update of the weight's shape (Eckart & Young)."""
        matrix = update.reshape(self.b.shape[0], self.a.shape[1]) / self.scale
        left, values, right = torch.linalg.svd(matrix.double().cpu(), full_matrices=False)
        rank = min(self.a.shape[0], len(values))
        root = values[:rank].sqrt()
        self.b.zero_()
        self.a.zero_()
        self.b[:, :rank] = (left[:, :rank] * root).to(self.b)
        self.a[:rank] = (root.unsqueeze(1) * right[:rank]).to(self.a)


class Scattered(nn.Module):
    """The control: as many free entries as B and A have, at random places of the weight; zero at first."""

    places: Tensor

    def __init__(self, shape: torch.Size, ratio: float, mapping: Mapping, scale: float) -> None:
        super().__init__()
        budget = sum(math.prod(part) for part in factor_shapes(shape, ratio, mapping))
        self.values = nn.Parameter(torch.zeros(min(budget, math.prod(shape))))
        self.register_buffer("places", torch.zeros(len(self.values), dtype=torch.int64))
        self.shape, self.scale = shape, scale

    def forward(self) -> Tensor:
        flat = self.values.new_zeros(math.prod(self.shape))
        return self.scale * flat.scatter(0, self.places, self.values).view(self.shape)

    @torch.no_grad()
    def draw(self, start: Start, generator: torch.Generator) -> None:
        order = torch.randperm(math.prod(self.shape), generator=generator)
        self.places.copy_(order[: len(self.values)].sort().values)
        self.values.zero_()


class Split(nn.Module):
    """`general` leaves out the tail and what earlier phases stacked up."""

    weight: nn.Parameter
    tail: nn.Module
    stacked: Tensor
    general: bool

    def added(self) -> Tensor:
        """What is on top of W_g."""
        part: Tensor = self.tail()
        return part + self.stacked if "stacked" in self._buffers else part

    def whole_weight(self) -> Tensor:
        """W_g + tail, in float32 under autocast too."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight + self.added()

    def used_weight(self) -> Tensor:
        return self.weight if self.general else self.whole_weight()


class SplitConv2d(Split, nn.Conv2d):  # type: ignore[misc]  # both declare the weight
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, self.used_weight(), self.bias)
        return out


class SplitLinear(Split, nn.Linear):  # type: ignore[misc]  # both declare the weight
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.used_weight(), self.bias)


SPLIT: dict[type[nn.Module], type[Split]] = {nn.Conv2d: SplitConv2d, nn.Linear: SplitLinear}


def divisible(net: Network, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Names of plain layers of these kinds in trunk and backbones whose weight trains."""
    return [
        name
        for name, module in net.named_modules()
        if type(module) in kinds and name.startswith(("trunk.", "backbones.")) and module.weight.requires_grad
    ]


def divide(module: nn.Module, tail: nn.Module, stacks: bool) -> None:
    """Turn a plain layer into its split form in place; parameter names and values stay."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    module.__class__ = SPLIT[type(module)]
    module.tail = tail.to(weight.device)
    module.general = False  # type: ignore[assignment]
    if stacks:
        module.register_buffer("stacked", torch.zeros_like(weight))


@torch.no_grad()
def fold(module: Split, keep_tail: bool = True) -> None:
    """Back to a plain layer: W <- W_g + tail, or W_g alone."""
    if keep_tail:
        module.weight.add_(module.added())
    for name in ("tail", "general", *(["stacked"] if "stacked" in module._buffers else [])):
        delattr(module, name)
    module.__class__ = next(plain for plain, split in SPLIT.items() if isinstance(module, split))  # type: ignore[assignment]


def split_modules(net: Network) -> dict[str, Split]:
    """All layers that are split now, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Split)}


@contextmanager
def general_only(net: Network, norm: Literal["batch", "running"]) -> Iterator[None]:
    """Inside, the network runs on W_g alone and writes no running statistics. `norm`: BatchNorm layers that train
    use the statistics of this pass's batch, or the running ones."""
    splits = list(split_modules(net).values())
    flag = "track_running_stats" if norm == "batch" else "training"
    norms = [
        module
        for module in net.modules()
        if isinstance(module, _BatchNorm) and module.training and getattr(module, flag)
    ]
    for split in splits:
        split.general = True
    for module in norms:
        setattr(module, flag, False)
    try:
        yield
    finally:
        for split in splits:
            split.general = False
        for module in norms:
            setattr(module, flag, True)
