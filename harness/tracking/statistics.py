"""Means over seeds, as the parent run shows them."""

import math
from collections.abc import Mapping, Sequence


def seed_statistics(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every key that all seeds have; with two seeds or more also `<key>_std` and `<key>_ci95`.

    The standard deviation is the sample's (n - 1); ci95 is the half-width of Student's 95 % interval.
    """
    result: dict[str, float] = {}
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    for key in sorted(shared):
        values = [run[key] for run in runs]
        mean = math.fsum(values) / len(values)
        result[key] = mean
        if len(values) > 1:
            deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
            result[f"{key}_std"] = deviation
            result[f"{key}_ci95"] = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return result


def not_shared(runs: Sequence[Mapping[str, float]]) -> list[str]:
    """Keys that some seeds have and others lack; no mean is shown for them."""
    everywhere = set.intersection(*(set(run) for run in runs)) if runs else set()
    return sorted(set().union(*runs) - everywhere)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
