"""How well a measured column agrees with a printed one: the order of its learners, and the distance of its cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

SMALLEST_GAP = 1.0  # points; printed values closer than that have no order worth checking


@dataclass(frozen=True)
class Agreement:
    """One column: `tau` over `pairs` pairs of learners, `distance` in points over `cells` cells."""

    tau: float | None  # None without a pair
    pairs: int
    distance: float | None  # mean absolute difference; None without a cell
    cells: int


def agreement(measured: Sequence[float], published: Sequence[float]) -> Agreement:
    """Agreement of two columns [n], learner by learner.

    Kendall's tau (tau-a) over the pairs whose printed values lie more than SMALLEST_GAP apart: pairs in the printed
    order minus pairs against it, over all of them; a measured tie counts for neither.
    """
    if len(measured) != len(published):
        raise ValueError("measured and published must have one value for each learner")
    kept = [
        (i, j)
        for i, j in combinations(range(len(published)), 2)
        if round(abs(published[i] - published[j]), 9) > SMALLEST_GAP
    ]
    signs = [_sign(measured[i] - measured[j]) * _sign(published[i] - published[j]) for i, j in kept]
    distances = [abs(m - p) for m, p in zip(measured, published, strict=True)]
    return Agreement(
        tau=sum(signs) / len(kept) if kept else None,
        pairs=len(kept),
        distance=math.fsum(distances) / len(distances) if distances else None,
        cells=len(distances),
    )


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
