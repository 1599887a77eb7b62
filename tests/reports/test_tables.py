"""What shares a table, a column, a row; layouts; what the caption owns up to."""

import pytest
from fake_runs import add_run
from shown_tables import TASK_MEAN, TOTAL, only_table, report, texts

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.reports.plan import load_layout


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
