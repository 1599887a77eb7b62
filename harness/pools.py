"""Pools: immutable sets of training rows that stages draw from. A pool holds no images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation


@dataclass(frozen=True)
class Pool:
    """Rows of training data: `index` [N] into the dataset, `quota` [N] the class (arrival id) whose share
    of the memory a row counts towards, `slot` [N] its place in the memory (-1: new data). All int64, CPU.
    `positives` [N, K] bool: with several labels an image, the positives that may be seen; else None."""

    index: Tensor
    quota: Tensor
    slot: Tensor
    positives: Tensor | None = None

    @staticmethod
    def empty() -> "Pool":
        nothing = torch.empty(0, dtype=torch.int64)
        return Pool(nothing, nothing, nothing)

    @staticmethod
    def of_new(index: Tensor, quota: Tensor) -> "Pool":
        return Pool(index, quota, torch.full_like(index, -1))

    def __len__(self) -> int:
        return int(self.index.numel())

    def __add__(self, other: "Pool") -> "Pool":
        index, quota, slot = (torch.cat(pair) for pair in zip(self.columns, other.columns, strict=True))
        return Pool(index, quota, slot, _stacked(self, other))

    def __getitem__(self, rows: Tensor) -> "Pool":
        positives = None if self.positives is None else self.positives[rows]
        return Pool(self.index[rows], self.quota[rows], self.slot[rows], positives)

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.index, self.quota, self.slot

    def counts(self, n_classes: int) -> Tensor:
        """Rows per class [n_classes], float32; with several labels an image, its visible positives."""
        if self.positives is not None:
            found = self.positives.sum(dim=0).float()
            return torch.cat([found, found.new_zeros(max(n_classes - len(found), 0))])[:n_classes]
        return torch.bincount(self.quota, minlength=n_classes).float()

    def rows_by_class(self) -> dict[int, Tensor]:
        """Row numbers of each class that has any, in the pool's order; classes ascending."""
        order = torch.argsort(self.quota, stable=True)
        classes, sizes = torch.unique_consecutive(self.quota[order], return_counts=True)
        return dict(zip(classes.tolist(), torch.split(order, sizes.tolist()), strict=True))

    def balanced(self, per_class: int, generator: torch.Generator) -> "Pool":
        """At most `per_class` rows of each class, drawn without replacement."""
        return self[_joined([_drawn(rows, per_class, generator) for rows in self.rows_by_class().values()])]

    def split(self, held: Callable[[int, int], int], generator: torch.Generator) -> tuple["Pool", "Pool"]:
        """(rest, held out): `held(class, n)` says how many of a class's n rows are held out."""
        taken = [
            _drawn(rows, held(label, len(rows)), generator) for label, rows in self.rows_by_class().items()
        ]
        out = torch.zeros(len(self), dtype=torch.bool)
        out[_joined(taken)] = True
        return self[~out], self[out]


def _stacked(left: Pool, right: Pool) -> Tensor | None:
    """Visible positives of two pools, one below the other; columns that one of them lacks are False."""
    parts = [part.positives for part in (left, right) if part.positives is not None]
    if not parts:
        return None
    width = max(part.shape[1] for part in parts)
    both = torch.zeros(len(left) + len(right), width, dtype=torch.bool)
    for start, part in ((0, left.positives), (len(left), right.positives)):
        if part is not None:
            both[start : start + len(part), : part.shape[1]] = part
    return both


def _drawn(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if count < 0:
        raise ContractViolation(f"A pool was asked for {count} rows of a class; ask for 0 or more.")
    return rows[torch.randperm(len(rows), generator=generator)[:count]]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
