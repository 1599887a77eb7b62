"""Means over seeds, their spread, and Student's interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; spread and interval need at least two."""

    mean: float
    std: float | None  # sample standard deviation (n - 1)
    half_width: float | None  # of the 95 % interval of the mean, Student's t
    seeds: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.seeds)


def summarise(values: Mapping[int, float]) -> Summary:
    """Summary of seed -> value. Raises ValueError without a value."""
    if not values:
        raise ValueError("there is no value to summarise")
    seeds = tuple(sorted(values))
    n, mean = len(seeds), math.fsum(values.values()) / len(seeds)
    if n == 1:
        return Summary(mean, None, None, seeds)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / (n - 1))
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Summary(mean, std, quantile * std / math.sqrt(n), seeds)
