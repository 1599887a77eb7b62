"""Which images of each class a profile keeps."""

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Sampling = Literal["shuffle", "first"]


def rows_by_class(labels: NDArray[np.int64], n_classes: int) -> list[Rows]:
    """Row numbers of each label, ascending: entry c holds the rows whose label is c."""
    by_label = np.argsort(labels, kind="stable").astype(np.int64)
    borders = np.searchsorted(labels[by_label], np.arange(n_classes + 1))
    return [by_label[lo:hi] for lo, hi in pairwise(borders)]


def sample_rows(rows: list[Rows], quotas: NDArray[np.int64], how: Sampling, seed: int) -> list[Rows]:
    """The rows that each class keeps, `quotas[c]` of class c, in the order in which they were drawn.

    shuffle: one legacy numpy generator walks the labels upwards, shuffles each label's rows and keeps the
    first (LDAM, LT-CIL's CIFAR). first: the first rows as listed (LT-CIL's ImageNet); a seed other than 0
    draws as `shuffle` does, since a list cannot vary.
    """
    if how == "first" and seed == 0:
        return [mine[:quota] for mine, quota in zip(rows, quotas, strict=True)]
    generator = np.random.RandomState(seed)
    kept = []
    for mine, quota in zip(rows, quotas, strict=True):
        drawn = mine.copy()
        generator.shuffle(drawn)
        kept.append(drawn[:quota])
    return kept
