"""Where a measured mean stands against a published value."""

from dataclasses import dataclass
from typing import Literal

from imbcil.reports.aggregate import Summary

Judgement = Literal["verified", "undecided", "differs", "not run", "no images here", "not judged"]

LARGEST_DIFFERENCE = 1.0  # points
WIDEST_INTERVAL = 1.5  # half-width of the 95 % interval, points
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Verdict:
    """The judgement, and measured minus published where something was measured."""

    judgement: Judgement
    difference: float | None = None

    def __str__(self) -> str:
        if self.difference is None:
            return self.judgement
        return f"{signed(self.difference)}, {self.judgement}"


def verdict(measured: Summary | None, published: float, *, full: bool = True, images: bool = True) -> Verdict:
    """Judge a cell. `full`: the published recipe to the letter; a reduced one stays undecided."""
    if measured is None:
        return Verdict("not run" if images else "no images here")
    difference = measured.mean - published
    narrow = measured.half_width is not None and _at_most(measured.half_width, WIDEST_INTERVAL)
    if not full or measured.n < FEWEST_SEEDS or not narrow:
        return Verdict("undecided", difference)
    return Verdict("verified" if _at_most(abs(difference), LARGEST_DIFFERENCE) else "differs", difference)


def signed(difference: float) -> str:
    """Two decimals with their sign; a difference that rounds to nothing is +0.00."""
    return f"{round(difference, 2) + 0.0:+.2f}"


def _at_most(value: float, bound: float) -> bool:
    """Without the last binary digit's noise: 36.66 - 35.66 is at most 1."""
    return round(value, 9) <= bound
