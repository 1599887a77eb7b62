"""What shares a table, a column, a row; who is marked; what the caption owns up to."""

from dataclasses import replace

import pytest
from fake_runs import add_run, make_store

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.reports.collect import collect
from imbcil.reports.plan import Request, load_layout
from imbcil.reports.tables import build_report

TASK_MEAN, TOTAL = "final/avg_acc_task_mean", "final/avg_acc_total"


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def report(store, **request):
    return build_report(collect(store), Request(**request))


def only_table(store, **request):
    (table,) = report(store, **request).tables
    return table


def texts(table, metric=TASK_MEAN):
    """Row heading -> the cells of one metric."""
    return {
        row.heading: [c.text for c, s in zip(row.cells, table.slots, strict=True) if s.metric == metric]
        for row in table.rows
    }


def marks(table, metric=TASK_MEAN):
    return {
        row.heading: [c.mark for c, s in zip(row.cells, table.slots, strict=True) if s.metric == metric]
        for row in table.rows
    }


def test_both_averages_stand_side_by_side_the_compared_one_first(store):
    add_run(store, accuracy=[60, 40])
    table = only_table(store)
    assert [slot.metric for slot in table.slots] == [TASK_MEAN, TOTAL]
    assert texts(table)["icarl"] == ["50.00 (1)"]
    assert texts(table, TOTAL)["icarl"] == ["51.00 (1)"]


def test_seeds_become_mean_spread_and_number(store):
    for seed, accuracy in enumerate([30, 32, 34]):
        add_run(store, accuracy=accuracy, seed=seed)
    assert texts(only_table(store))["icarl"] == ["32.00 ± 2.00 (3)"]


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "paper-aa"},
        {"recipe": "paper-quarter", "reduced": True},
        {"preset": "sound"},
        {"memory": "2000"},
        {"precision": "fp32"},
        {"vary": ("model", "order"), "family": "f" * 16},
    ],
    ids=str,
)
def test_runs_under_other_conditions_never_share_a_table(store, other):
    add_run(store, "icarl", 30)
    add_run(store, "replay", 90, **other)
    tables = report(store).tables
    assert len(tables) == 2
    for table in tables:
        assert len([row for row in table.rows if row.kind == "measured"]) == 1
        assert not any(cell.mark for row in table.rows for cell in row.cells)


@pytest.mark.parametrize(
    "other",
    [
        {"family": "e" * 16},
        {"order": "ordered"},
        {"imbalance": "exp rho 10"},
        {"column": "lfh-5"},
        {"dataset": "food101-lt"},
    ],
    ids=str,
)
def test_other_scenarios_never_share_a_column(store, other):
    add_run(store, "icarl", 30)
    add_run(store, "icarl", 40, **other)
    table = only_table(store)
    assert sorted(texts(table)["icarl"]) == ["30.00 (1)", "40.00 (1)"]
    heads = list(table.headings.values())
    assert len(set(heads)) == 2  # a reader can tell the columns apart


def test_runs_with_other_settings_of_a_learner_are_other_rows(store):
    for beta in (True, False):
        settings = {"gradient_reweighting.beta": beta, "gradient_reweighting.prior": True}
        add_run(store, "gradient_reweighting", 30 + beta, settings=settings)
    assert texts(only_table(store)).keys() >= {"DGR [beta=false]", "DGR [beta=true]"}


def test_settings_that_a_recipe_chooses_by_protocol_do_not_split_a_row(store):
    add_run(store, "wa", 30, settings={"wa.clip": 1})
    add_run(store, "wa", 40, settings={"wa.clip": 2}, column="lfh-5", protocol="lfh")
    assert texts(only_table(store))["wa"] == ["40.00 (1)", "30.00 (1)"]


def test_the_newest_of_two_runs_of_one_seed_counts_and_the_other_is_owned_up_to(store):
    add_run(store, accuracy=30, device="cpu", created_ms=1)
    add_run(store, accuracy=40, device="cuda", created_ms=2)
    table = only_table(store)
    assert texts(table)["icarl"] == ["40.00 (1)"]
    assert table.notes == ("1 older run of the same cell and seed left out: the newest counts.",)


def test_seeds_that_older_code_trained_are_not_averaged_with_those_of_newer_code(store):
    for seed in range(3):
        add_run(store, "mine", 10, seed=seed, created_ms=seed, code={"mine": "sha256:old"})
    add_run(store, "mine", 40, seed=0, created_ms=7, code={"mine": "sha256:new"})
    table = only_table(store)
    assert texts(table)["mine"] == ["40.00 (1)"]
    assert table.notes[-1] == (
        "mine, lfs-10 of cifar100-lt: seeds 1, 2 left out, trained by an older version of its code; the same command "
        "with them trains them again."
    )


def test_runs_from_before_versions_were_written_down_still_count(store):
    add_run(store, "mine", 20, seed=0, created_ms=1)
    add_run(store, "mine", 40, seed=1, created_ms=2, code={"mine": "1"})
    assert texts(only_table(store))["mine"] == ["30.00 ± 14.14 (2)"]


def test_a_mean_is_not_taken_over_the_seeds_that_happen_to_have_the_metric(store):
    add_run(store, metrics=[{"phase/acc_task_mean": 50, "phase/acc_few": 10}])
    add_run(store, seed=1, metrics=[{"phase/acc_task_mean": 50}])
    assert texts(only_table(store, metrics=("last_acc_few",)), "final/last_acc_few")["icarl"] == [""]


def test_further_predictors_have_rows_of_their_own(store):
    metrics = [
        {
            "phase/acc_task_mean": 50,
            "phase/acc_total": 50,
            "phase/fc/acc_task_mean": 40,
            "phase/fc/acc_total": 41,
        }
    ]
    add_run(
        store,
        "icarl",
        metrics=metrics,
    )
    table = only_table(store)
    assert texts(table)["icarl"] == ["50.00 (1)"]
    assert texts(table)["icarl (fc)"] == ["40.00 (1)"]
    assert texts(table, TOTAL)["icarl (fc)"] == ["41.00 (1)"]


# --- best and second ------------------------------------------------------------------------------------------------


def test_best_and_second_are_marked(store):
    for method, accuracy in (("finetune", 10), ("icarl", 30), ("replay", 20)):
        add_run(store, method, accuracy)
    found = marks(only_table(store))
    assert (found["icarl"], found["replay"], found["finetune"]) == (["best"], ["second"], [""])


def test_values_that_print_alike_share_the_mark_and_leave_no_second(store):
    for method, accuracy in (("finetune", 10), ("icarl", 30.001), ("replay", 30.004)):
        add_run(store, method, accuracy)
    found = marks(only_table(store))
    assert (found["icarl"], found["replay"], found["finetune"]) == (["best"], ["best"], [""])


def test_of_forgetting_the_least_is_best_and_of_its_correlation_nothing(store):
    for method, lost in (("icarl", 5.0), ("replay", 9.0)):
        phase = {"phase/forgetting": lost, "phase/forgetting_count_corr": lost / 10}
        add_run(store, method, metrics=[phase])
    table = only_table(store, metrics=("last_forgetting", "final/last_forgetting_count_corr"))
    assert marks(table, "final/last_forgetting") == {"icarl": ["best"], "replay": ["second"]}
    assert marks(table, "final/last_forgetting_count_corr") == {"icarl": [""], "replay": [""]}


@pytest.mark.parametrize(
    ("fields", "tag"),
    [({"upper_bound": True}, "upper bound"), ({"oracle_memory": True}, "oracle memory")],
)
def test_what_cannot_be_matched_is_never_best(store, fields, tag):
    add_run(store, "top", 90, **fields)
    add_run(store, "icarl", 30)
    add_run(store, "replay", 20)
    found = marks(only_table(store))
    assert found[f"top ({tag})"] == [""]
    assert (found["icarl"], found["replay"]) == (["best"], ["second"])


def test_a_predictor_with_two_networks_is_never_best(store):
    metrics = [
        {
            "phase/acc_task_mean": 20,
            "phase/acc_total": 20,
            "phase/fc_boosted/acc_task_mean": 90,
            "phase/fc_boosted/acc_total": 90,
        }
    ]
    add_run(store, "foster", metrics=metrics, unranked_predictors=("fc_boosted",))
    add_run(store, "icarl", 30)
    found = marks(only_table(store))
    assert found["foster (fc_boosted) (not ranked)"] == [""]
    assert (found["icarl"], found["foster"]) == (["best"], ["second"])


def test_a_row_with_a_gap_is_never_best(store):
    for column in ("lfs-10", "lfs-20"):
        add_run(store, "icarl", 30, column=column)
        add_run(store, "replay", 20, column=column)
    add_run(store, "wa", 90, column="lfs-10")
    found = marks(only_table(store))
    assert found["wa (incomplete)"] == ["", ""]
    assert found["icarl"] == ["best", "best"]


def test_a_row_with_a_seed_still_to_finish_is_never_best(store):
    for method, accuracy in (("icarl", 30), ("replay", 20), ("wa", 90)):
        add_run(store, method, accuracy)
    add_run(store, "wa", 90, seed=1, status="interrupted", done=1)
    found = report(store)
    assert marks(found.tables[0])["wa (incomplete)"] == [""]
    assert found.notes == (
        "Not finished, so not shown: wa, lfs-10 of cifar100-lt, seed 1 (stopped, 1 of 2 phases).",
    )


def test_embedded_data_are_not_marked_beside_real_data(store):
    for method, accuracy in (("icarl", 30), ("replay", 20)):
        add_run(store, method, accuracy)
        add_run(store, method, 90, dataset="glyphs100-lt", embedded=True)
    table = only_table(store)
    assert [slot.column.embedded for slot in table.slots] == [False, False, True, True]
    assert marks(table)["icarl"] == ["best", ""]
    assert any("glyphs100-lt is embedded data" in sentence for sentence in table.caption)
    assert any("embedded data" in line for lines in table.headings.values() for line in lines)


def test_a_lone_row_is_no_winner(store):
    add_run(store, "icarl", 30)
    assert marks(only_table(store))["icarl"] == [""]


# --- printed values -------------------------------------------------------------------------------------------------


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


# --- layouts, metrics -----------------------------------------------------------------------------------------------


def test_the_poster_layout_has_all_cells_before_anything_was_run(store):
    table = only_table(store, layout=load_layout("poster"), images_at_hand=lambda name: "cifar" in name)
    printed = [row for row in table.rows if row.kind == "published"]
    assert len(printed) == 12 and all(len(row.cells) == 12 for row in printed)
    assert sum(cell.published is not None for row in printed for cell in row.cells) == 144
    judgements = [cell.verdict.judgement for cell in printed[0].cells]
    assert judgements == ["not run"] * 4 + ["no images here"] * 8
    assert texts(table)["icarl"] == [""] * 4 + ["no images here"] * 8


def test_the_poster_layout_takes_only_what_belongs_to_it(store):
    add_run(store, "icarl", 30)
    add_run(store, "finetune", 30)
    add_run(store, "icarl", 30, dataset="glyphs100-lt", embedded=True, recipe="quick", preset="sound")
    table = only_table(store, layout=load_layout("poster"))
    assert len([row for row in table.rows if row.kind == "measured"]) == 12
    assert texts(table)["icarl"][0] == "30.00 (1)"


def test_unknown_layouts_and_metrics_are_refused_with_the_nearest_known_one(store):
    with pytest.raises(UnknownName, match="did you mean poster"):
        load_layout("postr")
    add_run(store)
    for typed in ("last_acc_totl", "final/last_acc_totl", "phase/last_acc_totl"):
        with pytest.raises(UnknownName, match="called 'last_acc_totl'; did you mean last_acc_total"):
            report(store, metrics=(typed,))


@pytest.mark.parametrize("typed", ["phase/acc_total", "acc_total", "final/acc_total"])
def test_a_metric_of_a_phase_is_answered_with_the_numbers_of_a_run_that_follow_from_it(store, typed):
    add_run(store)
    with pytest.raises(
        BadInput, match=f"^{typed} is measured after every phase.*avg_acc_total .*last_acc_total "
    ):
        report(store, metrics=(typed,))


def test_a_metric_of_a_phase_without_a_mean_is_answered_with_its_last_value_and_costs_with_their_place(store):
    add_run(store, metrics=[{"phase/acc_total": 1}, {"phase/acc_total": 1, "phase/fc/acc_old": 2}])
    with pytest.raises(BadInput, match=r"run: ask for fc/last_acc_old \(its value after the last one\)\.$"):
        report(store, metrics=("phase/fc/acc_old",))
    with pytest.raises(BadInput, match=r"cost/train_s is in no table; it stands in each run's phases\.jsonl"):
        report(store, metrics=("cost/train_s",))


def test_the_caption_names_metric_average_recipe_preset_precision_memory_digest_and_what_seeds_vary(store):
    add_run(store, digest="abcdef0123456789")
    said = " ".join(only_table(store).caption)
    for word in (
        "avg_acc_task_mean", "avg_acc_total", "mean over all phases, the first included", "Recipe paper",
        "preset released", "memory 20/class", "precision bf16", "digest abcdef01", "seeds vary the model",
        "shuffled classes", "exp rho 100",
    ):  # fmt: skip
        assert word in said


def test_the_caption_of_several_labels_names_the_switches(store):
    for switches in ("difficult negative, crowd include", "difficult ignore, crowd include"):
        add_run(
            store, metrics=[{"phase/map": 50.0}], label_kind="multi", dataset="voc2007", imbalance="none",
            switches=switches, family=switches[10:14] * 4,
        )  # fmt: skip
    table = only_table(store)
    assert len(table.columns) == 2
    said = " ".join(table.caption)
    assert "difficult negative, crowd include" in said and "difficult ignore, crowd include" in said


def test_seeds_that_vary_the_order_form_one_family(store):
    for seed in range(2):
        add_run(store, accuracy=30 + seed, seed=seed, vary=("order",), family="b" * 16, digest=f"{seed}" * 16)
    table = only_table(store)
    assert texts(table)["icarl"] == ["30.50 ± 0.71 (2)"]
    said = " ".join(table.caption)
    assert "family bbbbbbbb of 2 scenarios" in said and "seeds vary the class order" in said


# --- the poster, and what others measured ---------------------------------------------------------------------------


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
