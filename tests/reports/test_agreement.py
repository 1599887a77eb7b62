"""Kendall's tau and distances against scipy and against pairs counted by hand."""

import random

import pytest
from pytest import approx
from scipy.stats import kendalltau

from imbcil.reports.agreement import agreement


def test_tau_over_pairs_counted_by_hand():
    published = [21.8, 31.4, 28.9, 29.5]  # 28.9 and 29.5 are no pair
    measured = [20.0, 25.0, 30.0, 10.0]  # with, with, against | against (28.9), with (29.5)
    found = agreement(measured, published)
    assert (found.pairs, found.cells) == (5, 4)
    assert found.tau == approx((3 - 2) / 5)
    assert found.distance == approx((1.8 + 6.4 + 1.1 + 19.5) / 4)


def test_a_measured_tie_counts_for_neither_order():
    assert agreement([5.0, 5.0, 9.0], [10.0, 20.0, 30.0]).tau == approx(2 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_where_all_gaps_are_wide_tau_is_scipys(seed):
    draw = random.Random(seed)
    published = [2.0 * place for place in draw.sample(range(12), 12)]
    measured = draw.sample(range(1000), 12)
    found = agreement(measured, published)
    assert found.pairs == 66
    assert found.tau == approx(kendalltau(measured, published).statistic)


def test_a_gap_of_exactly_one_point_is_no_pair_in_spite_of_binary_fractions():
    assert agreement([1.0, 2.0], [35.66, 36.66]).pairs == 0
    assert agreement([1.0, 2.0], [35.66, 36.67]).pairs == 1


def test_without_a_pair_there_is_no_tau_and_without_a_cell_no_distance():
    assert agreement([3.0], [5.0]) == agreement([3.0], [5.0])
    assert agreement([3.0], [5.0]).tau is None and agreement([3.0], [5.0]).distance == approx(2.0)
    assert agreement([], []).distance is None
