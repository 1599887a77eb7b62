"""Heads: one block of own parameters per phase, so that old rows can be frozen for good and nothing is copied
when classes arrive."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation, UnknownName

HeadClass = TypeVar("HeadClass", bound=type["Head"])
HEADS: dict[str, type["Head"]] = {}


def register_head(name: str) -> Callable[[HeadClass], HeadClass]:
    """Make a head known by name, so that a checkpoint can rebuild it. A method's file may add its own."""

    def add(kind: HeadClass) -> HeadClass:
        HEADS[name] = kind
        return kind

    return add


def build_head(kind: str, dim: int, options: dict[str, Any]) -> "Head":
    if kind not in HEADS:
        raise UnknownName("head", kind, sorted(HEADS))
    return HEADS[kind](dim, **options)


class Block(nn.Module):
    """The rows of one phase's classes: weight [k, d] and, if wanted, bias [k]; initialised as nn.Linear."""

    bias: nn.Parameter | None

    def __init__(self, rows: int, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dim))
        self.register_parameter("bias", nn.Parameter(torch.empty(rows)) if bias else None)
        self.reset()

    def reset(self) -> None:
        """Draw all values anew."""
        bound = 1 / math.sqrt(self.weight.shape[1]) if self.weight.shape[1] else 0.0
        for value in self.parameters():
            nn.init.uniform_(value, -bound, bound)

    def widen(self, extra: int, zero: bool) -> None:
        """Add `extra` input columns, freshly drawn or zero; the old columns keep their values."""
        old = self.weight.data
        dim = old.shape[1] + extra
        fresh = torch.zeros(old.shape[0], extra) if zero else torch.empty(old.shape[0], extra)
        if not zero:
            nn.init.uniform_(fresh, -1 / math.sqrt(dim), 1 / math.sqrt(dim))
        self.weight = nn.Parameter(torch.cat([old, fresh.to(old)], dim=1))


class Head(nn.Module):
    """Base of all heads: blocks per phase over features [B, dim]; float32 throughout."""

    rows_per_class = 1
    use_bias = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = nn.ModuleList()
        self.splits: list[int] = []

    def grow(self, classes: int) -> None:
        """Add a block for `classes` new classes; older logits do not change."""
        block = Block(classes * self.rows_per_class, self.dim, self.use_bias)
        self.blocks.append(block.to(self.weight) if len(self.blocks) else block)
        self.splits.append(classes)

    def widen(self, extra: int, zero_old: bool) -> None:
        """Take `extra` more features; with `zero_old` the old rows start without them."""
        for block in self.blocks:
            block.widen(extra, zero_old)  # type: ignore[operator]
        self.dim += extra

    def slices(self) -> list[slice]:
        """The class range of each phase."""
        ends = torch.tensor(self.splits).cumsum(0).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.splits, strict=True)]

    @property
    def half_base(self) -> bool:
        """Whether the first phase has at least twice the classes of the second, as half-base protocols do."""
        return self.splits[0] >= 2 * self.splits[1]

    @property
    def weight(self) -> Tensor:
        """All rows [sum of rows, dim], in order of arrival."""
        return torch.cat([block.weight for block in self.blocks])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor | None:
        if not self.use_bias:
            return None
        return torch.cat([block.bias for block in self.blocks])  # type: ignore[misc]

    def row_norms(self) -> Tensor:
        """L2 norm of each class's weights [K]; with several proxies a class, their mean norm."""
        norms: Tensor = self.weight.detach().norm(dim=1)
        return norms.reshape(-1, self.rows_per_class).mean(dim=1)

    @torch.no_grad()
    def imprint(self, directions: Tensor) -> None:
        """Newest rows from directions [rows, dim] times the mean norm of the older rows; where a direction is
        zero the row keeps its draw. Qi et al. 2018, as Hou et al. 2019 use it."""
        newest: Tensor = self.blocks[-1].weight  # type: ignore[assignment]
        norm = self.weight[: -len(newest)].norm(dim=1).mean()
        fresh = directions.to(newest) * norm
        newest.copy_(torch.where(fresh.any(dim=1, keepdim=True), fresh, newest))

    @torch.no_grad()
    def align_newest(self) -> Tensor:
        """Scale the newest weights so that their mean norm is the older ones'; the factor, 1 in the first phase and
        where a side has no length. Biases stay. Zhao et al. 2020, sec. 3.3."""
        newest: Tensor = self.blocks[-1].weight  # type: ignore[assignment]
        if len(self.blocks) == 1:
            return torch.ones((), device=newest.device)
        old, new = self.weight[: -len(newest)].norm(dim=1).mean(), newest.norm(dim=1).mean()
        factor = torch.where((old > 0) & (new > 0), old / new.clamp(min=1e-12), 1.0)
        newest.mul_(factor)
        return factor

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        """{"logits": [B, K], ...}"""
        raise NotImplementedError(f"{type(self).__name__} defines no forward.")


@register_head("linear")
class LinearHead(Head):
    """z = W h + b."""

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__(dim)
        self.use_bias = bias

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        return {"logits": F.linear(features, self.weight, self.bias)}


@register_head("cosine")
class CosineHead(Head):
    """z = scale * cos(h, w), no bias (Hou et al. 2019, eq. 3). One scale, which learns unless it is `fixed`: where no
    loss moves it, weight decay would. extras: "cos" [B, K]."""

    use_bias = False
    scale: Tensor

    def __init__(self, dim: int, scale: float = 1.0, fixed: bool = False) -> None:
        super().__init__(dim)
        if fixed:
            self.register_buffer("scale", torch.tensor(scale))
        else:
            self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        cosines = F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
        return {"logits": self.scale * cosines, "cos": cosines}


@register_head("proxy")
class ProxyHead(Head):
    """Several proxies a class, merged by attention: s_c = sum_k softmax_k(s_ck) s_ck, z = scale * s (Douillard et
    al. 2020, eqs. 5 and 6). `distance`: s_ck is minus the squared distance of unit vectors (2 cos - 2), the authors'
    code, else the cosine. extras: "similarity" [B, K], s without the scale."""

    use_bias = False

    def __init__(self, dim: int, proxies: int = 10, scale: float = 1.0, distance: bool = False) -> None:
        super().__init__(dim)
        self.rows_per_class = proxies
        self.distance = distance
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        weight = self.weight
        cosines = F.linear(F.normalize(features, dim=1), F.normalize(weight, dim=1))
        parts = 2 * cosines - 2 if self.distance else cosines
        parts = parts.reshape(len(features), len(weight) // self.rows_per_class, self.rows_per_class)
        merged = (parts.softmax(dim=2) * parts).sum(dim=2)
        return {"logits": self.scale * merged, "similarity": merged}


@register_head("branches")
class BranchHead(Head):
    """Two batch norms of the backbone's last map before one shared linear layer: z = gate z_O + z_N, where each z_* is
    the layer's answer to its branch's global average, bias included (Chen & Chang 2023, sec. 3.2).

    `gate` is 0 until branches are first merged: the old branch then only follows its statistics. extras: "old",
    "new" [B, K].
    """

    gate: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.old_branch = nn.BatchNorm2d(dim)
        self.new_branch = nn.BatchNorm2d(dim)
        self.register_buffer("gate", torch.zeros(()))

    def widen(self, extra: int, zero_old: bool) -> None:
        raise ContractViolation(
            "A head with branches normalises one backbone's map; it cannot take more features."
        )

    @torch.no_grad()
    def merge(self) -> None:
        """The old branch's affine values become the new one's, later the mean of both; its statistics stay."""
        for old, new in zip(self.old_branch.parameters(), self.new_branch.parameters(), strict=True):
            old.copy_(new + 0.5 * self.gate * (old - new))
        self.gate.fill_(1.0)

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        weight, bias = self.weight, self.bias
        last = maps[-1].to(weight.dtype)
        old, new = (
            F.linear(branch(last).mean(dim=(2, 3)), weight, bias)
            for branch in (self.old_branch, self.new_branch)
        )
        return {"logits": self.gate * old + new, "old": old, "new": new}
