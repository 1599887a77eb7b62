"""Verdicts by hand: three seeds with a spread of s have a half-width of 4.303 s / sqrt(3) = 2.484 s."""

import pytest
from pytest import approx

from imbcil.reports.aggregate import summarise
from imbcil.reports.verdicts import signed, verdict

PUBLISHED = 35.66


def seeds(mean, spread, n=3):
    """n values around `mean` whose sample standard deviation is `spread` (n odd)."""
    half = n // 2
    step = spread * ((n - 1) / (2 * half)) ** 0.5
    return summarise({s: mean + step * (0 if s == 0 else 1 if s <= half else -1) for s in range(n)})


@pytest.mark.parametrize(
    ("measured", "judgement"),
    [
        (seeds(35.66, 0.1), "verified"),
        (seeds(36.66, 0.1), "verified"),  # one point is allowed, in spite of binary fractions
        (seeds(34.65, 0.1), "differs"),
        (seeds(35.66, 0.60), "verified"),  # half-width 1.49
        (seeds(35.66, 0.61), "undecided"),  # half-width 1.52
        (seeds(20.0, 2.0), "undecided"),  # far off, but too wide to say so
        (summarise({0: 35.66, 1: 35.66}), "undecided"),  # two seeds
        (summarise({0: 35.66}), "undecided"),
    ],
)
def test_a_cell_is_judged_by_distance_interval_and_number_of_seeds(measured, judgement):
    found = verdict(measured, PUBLISHED)
    assert found.judgement == judgement
    assert found.difference == approx(measured.mean - PUBLISHED)


@pytest.mark.parametrize("mean", [35.66, 20.0])
def test_a_reduced_recipe_stays_undecided_with_its_difference(mean):
    found = verdict(seeds(mean, 0.1), PUBLISHED, full=False)
    assert str(found) == f"{signed(mean - PUBLISHED)}, undecided"


def test_what_was_not_run_says_why():
    assert str(verdict(None, PUBLISHED)) == "not run"
    assert str(verdict(None, PUBLISHED, images=False)) == "no images here"


def test_a_difference_that_rounds_to_nothing_is_not_negative():
    assert signed(-0.004) == "+0.00"
