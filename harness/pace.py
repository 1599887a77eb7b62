"""How much of a run is done and how long the rest will take, from the pace of this process."""

import time
from collections.abc import Sequence


class Pace:
    """`weights`: planned steps of each phase; the time left follows from what this process did so far."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = weights
        self.began: tuple[float, float] | None = None  # (fraction, clock) at this process's first report

    def fraction(self, phase: int, share: float) -> float:
        """Part of the whole run, 0..1, when `share` of `phase` is done."""
        total = sum(self.weights) or 1
        return (sum(self.weights[:phase]) + share * self.weights[phase]) / total

    def seconds_left(self, fraction: float) -> float | None:
        """None until there is a pace to go by."""
        now = time.monotonic()
        if self.began is None:
            self.began = (fraction, now)
            return None
        first, clock = self.began
        return (now - clock) / (fraction - first) * (1 - fraction) if fraction > first else None
