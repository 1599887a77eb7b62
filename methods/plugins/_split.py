"""Weights in two parts, W = W_g + tail: what MORE makes of a convolution, a linear layer or an adapter while it trains.

Of an adapter W_g is the weight that rests and what the adapter adds to it.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from imbcil.harness.network.adapters import AdaptedQkv, LowRankAdapter
from imbcil.harness.network.network import Network

Mapping = Literal["matrix", "kernel"]
Start = Literal["kaiming", "normal", "both"]
Shapes = tuple[tuple[int, int], tuple[int, int]]  # of B and A
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv2d,), "linear": (nn.Linear,), "both": (nn.Conv2d, nn.Linear), "adapters": (LowRankAdapter,)
}  # fmt: skip


def factor_shapes(shape: torch.Size, ratio: float, mapping: Mapping) -> Shapes:
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


def tail_shapes(module: nn.Module, ratio: float, mapping: Mapping) -> Shapes:
    """Shapes of B and A for a layer's weight, or beside an adapter: there r = max(1, round(ratio its rank))."""
    shape = weight_shape(module)
    if isinstance(module, LowRankAdapter):
        rank = max(1, round(ratio * module.rank))
        return (shape[0], rank), (rank, shape[1])
    return factor_shapes(shape, ratio, mapping)


def weight_shape(module: nn.Module) -> torch.Size:
    """Of a layer's weight, or of the weight that an adapter changes."""
    if isinstance(module, LowRankAdapter):
        return torch.Size((module.up.shape[0], module.down.shape[1]))
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape


class LowRank(nn.Module):
    """scale * B A in the shape of a weight; zero at first."""

    def __init__(self, shape: torch.Size, factors: Shapes, scale: float) -> None:
        super().__init__()
        left, right = factors
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

    def __init__(self, shape: torch.Size, factors: Shapes, scale: float) -> None:
        super().__init__()
        budget = sum(math.prod(part) for part in factors)
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

    tail: nn.Module
    stacked: Tensor
    general: bool

    def added(self) -> Tensor:
        """What is on top of W_g, in float32 under autocast too."""
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            part: Tensor = self.tail()
            return part + self.stacked if "stacked" in self._buffers else part


class SplitWeight(Split):
    """A layer that computes with one weight."""

    weight: nn.Parameter

    def whole_weight(self) -> Tensor:
        return self.weight + self.added()

    def used_weight(self) -> Tensor:
        return self.weight if self.general else self.whole_weight()


class SplitConv2d(SplitWeight, nn.Conv2d):  # type: ignore[misc]  # both declare the weight
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, self.used_weight(), self.bias)
        return out


class SplitLinear(SplitWeight, nn.Linear):  # type: ignore[misc]  # both declare the weight
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.used_weight(), self.bias)


class SplitAdapter(Split, LowRankAdapter):
    """A general adapter and a tail adapter beside it."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.general else out + F.linear(x, self.added())


SPLIT: dict[type[nn.Module], type[Split]] = {
    nn.Conv2d: SplitConv2d, nn.Linear: SplitLinear, LowRankAdapter: SplitAdapter
}  # fmt: skip


def divisible(modules: Iterable[tuple[str, nn.Module]], kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Names of the plain modules of these kinds whose weight, or adapter, trains."""
    return [name for name, module in modules if type(module) in kinds and _trains(module)]


def _trains(module: nn.Module) -> bool:
    value = module.up if isinstance(module, LowRankAdapter) else module.weight
    return bool(value.requires_grad)


def divide(module: nn.Module, tail: nn.Module, stacks: bool) -> None:
    """Turn a plain module into its split form in place; parameter names and values stay."""
    device = next(module.parameters()).device
    shape = weight_shape(module)
    module.__class__ = SPLIT[type(module)]
    module.tail = tail.to(device)
    module.general = False  # type: ignore[assignment]
    if stacks:
        module.register_buffer("stacked", torch.zeros(shape, device=device))


def general_weight(net: Network, name: str) -> Tensor:
    """W_g of a split module."""
    module = net.get_submodule(name)
    if isinstance(module, LowRankAdapter):
        layer, part = _adapted(net, name)
        return layer.whole(part)
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight


@torch.no_grad()
def absorb(net: Network, name: str, change: Tensor) -> None:
    """W_g <- W_g + change."""
    module = net.get_submodule(name)
    if isinstance(module, LowRankAdapter):
        layer, part = _adapted(net, name)
        layer.absorb(part, change)
    else:
        module.weight.add_(change)  # type: ignore[operator]


def _adapted(net: Network, name: str) -> tuple[AdaptedQkv, Literal["q", "v"]]:
    owner, _, part = name.rpartition(".")
    layer = net.get_submodule(owner)
    assert isinstance(layer, AdaptedQkv)
    return layer, "q" if part == "q" else "v"


@torch.no_grad()
def fold(net: Network, name: str, keep_tail: bool = True) -> None:
    """Back to a plain module: W <- W_g + tail, or W_g alone."""
    module = net.get_submodule(name)
    assert isinstance(module, Split)
    if keep_tail:
        absorb(net, name, module.added())
    for part in ("tail", "general", *(["stacked"] if "stacked" in module._buffers else [])):
        delattr(module, part)
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
