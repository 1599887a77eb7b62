"""Paired differences and Holm's correction against scipy and against numbers worked by hand."""

import random

import pytest
from fake_runs import add_run, make_store
from pytest import approx
from scipy import stats

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.reports.collect import collect
from imbcil.reports.comparison import build_comparison
from imbcil.reports.differences import holm, paired_difference
from imbcil.reports.plan import Request


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_mean_interval_and_p_are_scipys_paired_t_test(n):
    draw = random.Random(n)
    left = {seed: 30 + draw.gauss(0, 1) for seed in range(n)}
    right = {seed: 29 + draw.gauss(0, 1) for seed in range(n)}
    found = paired_difference(left, right)
    oracle = stats.ttest_rel(list(left.values()), list(right.values()))
    low, high = oracle.confidence_interval(0.95)
    assert found.p == approx(oracle.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == (approx(low), approx(high))


def test_three_differences_by_hand():
    found = paired_difference({0: 31.0, 1: 32.0, 2: 33.0}, {0: 30.0, 1: 30.0, 2: 30.0})
    assert found.mean == approx(2.0) and found.half_width == approx(4.302653 / 3**0.5)
    assert found.p == approx(0.0741799)  # t = 2 sqrt(3), two degrees of freedom


def test_only_shared_seeds_count():
    found = paired_difference({0: 31.0, 1: 32.0, 7: 99.0}, {0: 30.0, 1: 30.0, 2: 0.0})
    assert found.seeds == (0, 1) and found.mean == approx(1.5)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 1.0}, {0: 0.0}).p is None


def test_differences_without_spread_are_none_or_certain():
    assert paired_difference({0: 0.1 + 0.2, 1: 5.0}, {0: 0.3, 1: 5.0}).p == 1.0
    assert paired_difference({0: 2.3, 1: 5.3}, {0: 1.1, 1: 4.1}).p == 0.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == approx([0.03, 0.06, 0.06, 0.02])  # Holm's own steps
    assert holm([0.5, 0.9]) == approx([1.0, 1.0]) and holm([]) == []


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    for seed in range(3):
        add_run(store, "icarl", 30 + seed, seed=seed)
        add_run(store, "wa", 32 + seed + seed / 10, seed=seed)
        add_run(store, "bic", 30 + 3 * (seed % 2), seed=seed)
    return store


def comparison(store, reference="icarl", **request):
    return build_comparison(collect(store), Request(**request), reference)


def test_every_learner_is_compared_over_shared_seeds_and_corrected_over_the_table(store):
    (table,) = comparison(store).tables
    rows = {row.label: row.cells[0] for row in table.rows}
    assert set(rows) == {"wa", "bic"}
    assert rows["wa"].text == "+2.10 ± 0.25 (3)*"
    raw = [
        stats.ttest_rel([32, 33.1, 34.2], [30, 31, 32]).pvalue,
        stats.ttest_rel([30, 33, 30], [30, 31, 32]).pvalue,
    ]
    assert rows["wa"].difference.p_holm == approx(2 * raw[0])
    assert rows["bic"].difference.p_holm == approx(raw[1])
    said = " ".join(table.caption)
    assert (
        "minus icarl" in said
        and "Holm-corrected over 2 differences" in said
        and "seeds vary the model" in said
    )


def test_runs_under_other_conditions_or_scenarios_are_no_pair(store):
    add_run(store, "wa", 90, recipe="paper-aa")
    add_run(store, "bic", 90, column="lfh-5")
    (table,) = comparison(store).tables
    assert [slot.column.column for slot in table.slots] == ["lfs-10"]
    assert {row.cells[0].difference.mean < 5 for row in table.rows} == {True}


def test_a_reference_that_nobody_ran_and_two_metrics_are_refused(store):
    with pytest.raises(UnknownName, match="did you mean icarl"):
        comparison(store, "icrl")
    with pytest.raises(BadInput, match="one --metric"):
        comparison(store, metrics=("last_acc_total", "avg_acc_total"))
    with pytest.raises(UnknownName, match="did you mean last_acc_total"):
        comparison(store, metrics=("last_acc_totl",))


def test_a_reference_with_several_settings_is_refused(store):
    add_run(store, "icarl", 10, settings={"icarl.temperature": 4})
    with pytest.raises(BadInput, match=r"several settings .*'icarl \[temperature=4\]'"):
        comparison(store)


def test_settings_of_one_learner_are_compared_by_the_label_of_their_row(tmp_path):
    store = make_store(tmp_path / "store")
    for seed in range(3):
        add_run(store, "rebll", 40 + seed, seed=seed, settings={"rebll.exponent": 0.0})
        add_run(store, "rebll", 43 + seed + seed / 10, seed=seed, settings={"rebll.exponent": 1.0})
        add_run(store, "replay", 41 + seed + seed / 5, seed=seed)
    (table,) = comparison(store, "rebll [exponent=0.0]").tables
    rows = {row.label: row.cells[0].difference for row in table.rows}
    assert set(rows) == {"rebll [exponent=1.0]", "replay"}
    assert rows["rebll [exponent=1.0]"].mean == approx(3.1)
    raw = stats.ttest_rel([43, 44.1, 45.2], [40, 41, 42]).pvalue
    assert rows["rebll [exponent=1.0]"].p_holm == approx(2 * raw)


def test_without_another_learner_the_report_says_so(tmp_path):
    lone = make_store(tmp_path / "lone")
    add_run(lone, "icarl")
    assert comparison(lone).notes == (
        "Nothing can be compared with icarl: no other learner shares a column.",
    )


def test_seeds_of_older_code_are_left_out_with_a_word(store):
    for seed in (0, 1, 2):
        add_run(store, "replay", 30 + seed, seed=seed)
        add_run(
            store, "mine", 40, seed=seed, created_ms=seed, code={"mine": f"sha256:{'old' if seed else 'new'}"}
        )
    add_run(store, "mine", 41, seed=0, created_ms=9, code={"mine": "sha256:new"})
    (table,) = comparison(store, "replay").tables
    assert any(
        "mine, lfs-10 of cifar100-lt: seeds 1, 2 left out, trained by an older version" in note
        for note in table.notes
    )
