"""Gains of plug-ins over the bare learner: paired, corrected over the grid, and what is no cell of it."""

from dataclasses import replace

import pytest
from fake_runs import add_run, make_store
from pytest import approx
from scipy import stats

from imbcil.harness.base.errors import BadInput
from imbcil.reports.collect import collect
from imbcil.reports.gains import build_gains, gain_grids
from imbcil.reports.plan import load_gain_layout, load_layout
from imbcil.reports.plots import plot_gains
from imbcil.reports.request import Choice

LAYOUT = load_gain_layout("plugins-cil")
BARE, WITH = (30.0, 31.0, 32.0), (32.0, 33.1, 34.2)


def phases(value):
    groups = {"many": 9, "medium": 0, "few": -9, "old": -4, "new": 6}
    return [{"phase/acc_task_mean": value, **{f"phase/acc_{g}": value + by for g, by in groups.items()}}] * 2


def add(store, method, values, **fields):
    for seed, value in enumerate(values):
        add_run(store, method, metrics=phases(value), seed=seed, **fields)


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    add(store, "icarl", BARE)
    add(store, "icarl+more", WITH)
    add(store, "icarl+two_stage", (30.0, 33.0, 30.0))
    return store


def table(store):
    (found,) = build_gains(collect(store), LAYOUT).tables
    return found


def texts(found, method):
    (row,) = [row for row in found.rows if row.method == method]
    return {slot.metric_name: cell.text for slot, cell in zip(found.slots, row.cells, strict=True)}


def test_a_gain_is_paired_with_the_bare_learner_and_corrected_over_the_grid(store):
    found = table(store)
    assert texts(found, "icarl+more")["avg_acc_task_mean"] == "+2.10 ± 0.25 (3)*"
    cells = [cell.difference for row in found.rows for cell in row.cells if cell.difference]
    tested = [difference for difference in cells if difference.p_holm is not None]
    raw = stats.ttest_rel(WITH, BARE).pvalue
    assert len(tested) == 2 and min(d.p_holm for d in tested) == approx(2 * raw)
    assert any("Holm-corrected over 2 differences" in said for said in found.caption)


def test_groups_and_old_and_new_are_shown_beside_without_a_test(store):
    found = table(store)
    shown = texts(found, "icarl+more")
    for group in ("many", "medium", "few", "old", "new"):
        assert shown[f"last_acc_{group}"] == "+2.10 ± 0.25 (3)"
    assert any("by group, without a test" in said for said in found.caption)


def test_what_the_contract_refuses_is_not_defined_and_says_why(store):
    found = table(store)
    assert texts(found, "podnet+balanced_softmax")["avg_acc_task_mean"] == "not defined"
    assert texts(found, "podnet+more")["avg_acc_task_mean"] == "not run"
    (note,) = [n for n in found.notes if "balanced_softmax replaces" in n and "podnet" in n]
    assert note.startswith("Not defined: ") and "brings its own" in note


def test_every_combination_of_the_grid_has_a_row(store, tmp_path):
    assert len(table(store).rows) == 30
    assert len(table(make_store(tmp_path / "empty")).rows) == 30


def test_seeds_conditions_and_origins_are_never_mixed(store):
    add(store, "replay", (20.0,))
    add(store, "replay+more", (50.0,), recipe="paper-aa")
    add_run(store, "lucir+more", metrics=phases(40.0), seed=7)
    add(store, "lucir", (10.0,))
    grids = gain_grids(collect(store).finished, LAYOUT)
    assert len(grids) == 2
    methods = {key.method for grid in grids for key, _ in grid.gains}
    assert methods == {"icarl+more", "icarl+two_stage"}


def test_each_learner_is_its_own_base_and_each_origin_has_its_own(store):
    add(store, "replay", (20.0, 20.0, 20.0))
    add(store, "replay+more", (23.0, 23.1, 23.2))
    assert texts(table(store), "replay+more")["avg_acc_task_mean"] == "+3.10 ± 0.25 (3)*"
    found = collect(store)
    theirs = [replace(run, origin="theirs") for run in found.finished if run.info.method == "icarl+more"]
    (grid,) = gain_grids([*found.finished, *theirs], LAYOUT)
    assert {key.origin for key, _ in grid.gains} == {""}  # nobody there ran the bare learner


def test_two_plug_ins_at_once_and_several_bare_settings_are_kept_out(store):
    add(store, "icarl+more+two_stage", (60.0, 60.0, 60.0))
    assert len(table(store).rows) == 30
    add(store, "icarl", (10.0,), settings={"icarl.temperature": 4})
    with pytest.raises(BadInput, match="icarl was run bare with several settings"):
        table(store)


def test_the_heat_map_is_drawn_or_refused_in_a_sentence(store, tmp_path):
    assert plot_gains(store, "plugins-cil", Choice(), tmp_path / "gains.svg") == []
    assert (tmp_path / "gains.svg").stat().st_size > 3000
    with pytest.raises(BadInput, match="shows no gains"):
        plot_gains(store, "poster", Choice(), tmp_path / "gains.svg")
    with pytest.raises(BadInput, match="No gain in"):
        plot_gains(store, "plugins-cil", Choice(recipes=("bot",)), tmp_path / "gains.svg")
    add(store, "icarl", BARE, recipe="paper-aa")
    add(store, "icarl+more", BARE, recipe="paper-aa")
    with pytest.raises(BadInput, match="choose with --recipe"):
        plot_gains(store, "plugins-cil", Choice(), tmp_path / "gains.svg")
    add(store, "icarl+more", BARE, settings={"more.amplitude": 2})
    with pytest.raises(BadInput, match="several settings"):
        plot_gains(store, "plugins-cil", Choice(recipes=("paper",)), tmp_path / "gains.svg")


def test_a_layout_of_gains_is_no_ordinary_one():
    assert load_gain_layout("poster") is None
    with pytest.raises(BadInput):
        load_layout("plugins-cil")
