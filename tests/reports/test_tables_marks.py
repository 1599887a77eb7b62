"""Best and second: who is marked, and who never is."""

import pytest
from fake_runs import add_run
from shown_tables import marks, only_table, report


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
