"""Means, spreads and intervals against the standard library and a table of Student's t."""

import statistics

import pytest
from pytest import approx

from imbcil.reports.aggregate import summarise

T_975 = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262}  # quantiles as printed in textbooks


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_is_students(n):
    values = {seed: 30 + (seed * 7 % 5) + 0.1 * seed for seed in range(n)}
    found = summarise(values)
    std = statistics.stdev(values.values())
    assert found.mean == approx(statistics.mean(values.values()))
    assert found.std == approx(std)
    assert found.half_width == approx(T_975[n - 1] * std / n**0.5, rel=2e-4)


def test_one_seed_has_neither_spread_nor_interval():
    found = summarise({4: 33.0})
    assert (found.mean, found.std, found.half_width, found.seeds) == (33.0, None, None, (4,))


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="no value"):
        summarise({})
