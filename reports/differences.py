"""Differences between two learners over the seeds that both ran, and Holm's correction over a grid of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr

from imbcil.reports.aggregate import summarise

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences; interval and p need at least two shared seeds."""

    mean: float
    half_width: float | None  # of the 95 % interval, Student's t with n - 1 degrees of freedom
    p: float | None  # two-sided, paired t-test
    seeds: tuple[int, ...]
    p_holm: float | None = None  # p corrected over all cells of the grid

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """`values` minus `reference` (seed -> value) over the seeds of both; None where they share none.

    Differences that are all alike have no spread to test against: p is 1 where they are zero, else 0.
    """
    shared = sorted(values.keys() & reference.keys())
    if not shared:
        return None
    found = summarise({seed: values[seed] - reference[seed] for seed in shared})
    if found.std is None:
        return Difference(found.mean, None, None, found.seeds)
    if found.std <= 1e-12 * max(map(abs, values.values())):  # binary fractions, no spread
        p = 1.0 if round(found.mean, 9) == 0 else 0.0
    else:
        t = found.mean / (found.std / math.sqrt(found.n))
        p = 2 * float(stdtr(found.n - 1, -abs(t)))
    return Difference(found.mean, found.half_width, p, found.seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p values in the same order: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Holm 1979: holds the probability of any false claim over the whole family, whatever their dependence.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = highest
    return corrected
