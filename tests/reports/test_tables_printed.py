"""Printed values below measured ones, and tables of what others measured."""

from dataclasses import replace

import pytest
from fake_runs import add_run
from shown_tables import TASK_MEAN, TOTAL, only_table, report, texts

from imbcil.reports.collect import collect
from imbcil.reports.plan import Request, load_layout
from imbcil.reports.tables import build_report


def test_a_printed_value_stands_below_its_learner_with_status_and_verdict(store):
    for seed in range(3):
        add_run(store, "gradient_reweighting", 36.0 + 0.1 * seed, seed=seed)
    table = only_table(store)
    assert [row.heading for row in table.rows] == ["DGR", "DGR (published, primary)"]
    assert texts(table)["DGR (published, primary)"] == ["35.66 (+0.44, verified)"]
    assert texts(table, TOTAL)["DGR (published, primary)"] == [
        ""
    ]  # compared on one average, named beforehand
    assert any("CVPR 2024 poster (primary, n unknown)" in sentence for sentence in table.caption)
    assert any("Of 1 such intervals about 0.1 miss by chance" in sentence for sentence in table.caption)


def test_a_reduced_recipe_is_called_that_and_left_undecided(store):
    for seed in range(3):
        add_run(store, "icarl", 21.83, seed=seed, recipe="paper-quarter", reduced=True)
    table = only_table(store)
    assert texts(table)["iCaRL (published, primary)"] == ["21.83 (+0.00, undecided)"]
    assert "paper-quarter (reduced)" in table.title
    assert any("paper-quarter (reduced)" in sentence for sentence in table.caption)


@pytest.mark.parametrize("other", [{"preset": "sound"}, {"recipe": "strong"}, {"vary": ("order",)}], ids=str)
def test_numbers_of_another_recipe_preset_or_axis_are_shown_beside_but_not_compared(store, other):
    add_run(store, "icarl", 30, **other)
    table = only_table(store)
    assert texts(table)["iCaRL (published, primary)"] == ["21.83"]
    assert any("not compared" in sentence for sentence in table.caption)


def changed(store, method, path, value):
    """The store's runs as if those of `method` had been started with `--set path=value`."""
    found = collect(store)
    runs = [replace(r, overrides={path: value}) if r.info.method == method else r for r in found.finished]
    return build_report(replace(found, finished=tuple(runs)))


def test_a_run_that_changed_a_setting_is_never_verified(store):
    for seed in range(3):
        add_run(store, "icarl", 21.83, seed=seed)
    (table,) = changed(store, "icarl", "icarl.temperature", 4).tables
    assert texts(table)["iCaRL (published, primary)"] == ["21.83 (+0.00, undecided)"]


def test_a_run_that_changed_its_recipe_never_shares_a_table(store):
    add_run(store, "icarl", 30)
    add_run(store, "replay", 90)
    tables = changed(store, "replay", "train.epochs", 3).tables
    assert len(tables) == 2
    assert [any("Recipe paper, train.epochs = 3" in said for said in table.caption) for table in tables] == [
        False,
        True,
    ]
    assert "changed" in tables[1].title and "changed" not in tables[0].title


@pytest.mark.parametrize(
    "other",
    [{"memory": "2000"}, {"order": "ordered"}, {"imbalance": "exp rho 10"}, {"column": "lfs-5"}],
    ids=str,
)
def test_printed_values_of_another_setting_are_not_shown(store, other):
    add_run(store, "icarl", 30, **other)
    assert [row.kind for row in only_table(store).rows] == ["measured"]


def test_recalled_values_appear_only_on_request_and_with_a_dagger(store):
    add_run(
        store, "memo", 60, recipe="pycil", preset="sound", dataset="cifar100", imbalance="none", memory="2000"
    )
    assert not [h for h in texts(only_table(store), TOTAL) if "recalled" in h]
    table = only_table(store, include_recalled=True)
    assert "MEMO† (published, recalled)" in texts(table)
    assert any("Published†" in sentence for sentence in table.caption)


def poster_rows(store, **changes):
    found = collect(store)
    table = build_report(replace(found, **changes), Request(layout=load_layout("poster"))).tables[0]
    return {row.heading: row for row in table.rows}, table


def test_the_poster_sums_up_each_column_by_tau_and_distance(store):
    for method, accuracy in (("icarl", 22.83), ("wa", 30.63), ("il2m", 30.37)):  # printed 21.83, 27.63, 31.37
        add_run(store, method, accuracy)
    rows, table = poster_rows(store)
    tau, distance = rows["Kendall's tau (pairs)"], rows["mean |difference| (cells)"]
    assert [cell.text for cell in tau.cells] == ["0.33 (3)"] + [""] * 11
    assert [cell.text for cell in distance.cells] == ["1.67 (3)"] + [""] * 11
    assert any("published values lie more than 1 point apart" in said for said in table.caption)


def test_the_poster_compares_nothing_of_preset_sound(store):
    add_run(store, "icarl", 22.83, preset="sound")
    rows, _ = poster_rows(store)
    assert "Kendall's tau (pairs)" not in rows
    assert rows["iCaRL (published, primary)"].cells[0].text == "21.83"


def test_rows_with_strong_augmentation_stand_apart_with_a_difference_but_no_judgement(store):
    for seed in range(3):
        add_run(store, "foster", 30.43, seed=seed, recipe="paper-aa")
        add_run(store, "icarl", 30.43, seed=seed, recipe="paper-aa")  # not one of the three
    rows, table = poster_rows(store)
    assert [row.method for row in table.rows if row.kind == "measured"] == [
        *("foster", "mafdrc", "foster+two_stage")
    ]
    assert rows["FOSTER (published, primary)"].cells[0].text == "30.43 (+0.00, not judged)"
    assert "Kendall's tau (pairs)" not in rows


def test_what_the_project_measured_has_rows_and_verdicts_of_its_own(store):
    for seed in range(3):
        add_run(store, "icarl", 21.83, seed=seed)
    found = collect(store).finished
    theirs = tuple(
        replace(run, origin="measured by the project", final={TASK_MEAN: 25.0 + run.info.seed / 10})
        for run in found
    )
    rows, table = poster_rows(store, finished=(*found, *theirs))
    assert rows["icarl"].cells[0].text == "21.83 ± 0.00 (3)"
    assert rows["icarl (measured by the project)"].cells[0].text == "25.10 ± 0.10 (3)"
    printed = [row.cells[0].text for row in table.rows if row.label == "iCaRL"]
    assert printed == ["21.83 (+0.00, verified)", "21.83 (+3.27, differs)"]
    distances = [row.cells[0].text for row in table.rows if row.label.startswith("mean |")]
    assert distances == ["0.00 (1)", "3.27 (1)"]


def test_the_poster_needs_no_store_row_where_only_the_project_measured(store):
    add_run(store, "icarl", 30)
    theirs = tuple(replace(run, origin="measured by the project") for run in collect(store).finished)
    rows, _ = poster_rows(store, finished=theirs)
    assert "icarl" not in rows and rows["icarl (measured by the project)"].cells[0].text == "30.00 (1)"
    assert "wa" in rows


def test_columns_of_large_images_share_the_table_of_the_recipe_that_theirs_follows(store):
    add_run(store, "icarl", 21.83)
    add_run(store, "icarl", 33.75, dataset="imagenet-subset-lt", recipe="paper-224")
    rows, table = poster_rows(store)
    cells = [cell.text for cell in rows["icarl"].cells]
    assert (cells[0], cells[4]) == ("21.83 (1)", "33.75 (1)")
    assert rows["iCaRL (published, primary)"].cells[4].text == "33.75 (+0.00, undecided)"
    assert "Recipe of imagenet-subset-lt: paper-224." in table.caption


def test_whoever_overlaps_the_best_shows_it_and_one_seed_is_owned_up_to(store):
    for seed in range(3):
        add_run(store, "icarl", 30 + seed, seed=seed)  # half-width 2.48
        add_run(store, "wa", 33 + seed, seed=seed)
        add_run(store, "bic", 27 + seed / 10, seed=seed)  # half-width 0.25
    table = only_table(store)
    found = texts(table)
    assert (found["wa"], found["icarl"]) == (["34.00 ± 1.00 (3)"], ["31.00 ± 1.00 (3) ≈"])
    assert found["bic"] == ["27.10 ± 0.10 (3)"]
    assert any("≈: its 95 % interval" in said for said in table.caption)
    add_run(store, "replay", 60)
    assert any("One seed has no interval" in said for said in only_table(store).caption)


def test_intervals_take_the_place_of_deviations_on_request(store):
    for seed in range(3):
        add_run(store, "icarl", 30 + seed, seed=seed)
    table = only_table(store, interval=True)
    assert texts(table)["icarl"] == ["31.00 ± 2.48 (3)"]
    assert any("half-width of the 95 % interval (Student's t)" in said for said in table.caption)


def test_weights_that_may_know_the_answers_mark_their_row_in_a_table_of_their_own(store):
    add_run(store, "icarl", 40.0)
    add_run(
        store,
        "icarl",
        70.0,
        leaky_weights="trained on COCO",
        weights="w.pth",
        overrides={"weights": "w.pth 1234abcd"},
    )
    tables = report(store).tables
    assert [row.tags for table in tables for row in table.rows if row.kind == "measured"] == [
        (),
        ("leaky weights",),
    ]
    assert any('weights = "w.pth' in sentence for sentence in tables[1].caption)
