"""Means over seeds: equal to numpy's and scipy's, logged once, for complete sets of comparable runs."""

import numpy as np
import pytest
from mlflow_sides import Shown
from run_factory import START_MS, accuracy, add_phase, end_run, finish_run, start_run
from scipy import stats

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, sync_store
from imbcil.harness.tracking.statistics import seed_statistics


def test_statistics_over_seeds_agree_with_numpy_and_scipy() -> None:
    values = [61.25, 59.5, 64.125, 60.0]
    found = seed_statistics([{"a": value} for value in values])
    assert found["a"] == pytest.approx(np.mean(values), rel=1e-15)
    assert found["a_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-14)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found["a_ci95"] == pytest.approx((high - low) / 2, rel=1e-12)


def test_one_seed_has_a_mean_and_no_spread() -> None:
    assert seed_statistics([{"a": 3.0}]) == {"a": 3.0}


def test_a_metric_that_one_seed_lacks_has_no_mean() -> None:
    assert seed_statistics([{"a": 1.0, "b": 2.0}, {"a": 3.0}]).keys() == {"a", "a_std", "a_ci95"}


def test_the_parent_carries_the_means_under_the_names_of_its_children(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    runs = [finish_run(store, seed) for seed in (0, 1, 2)]
    for run in runs:
        tracker.deliver(run, "finished")
    assert tracker.deliver_parent(runs)
    points = shown.points("icarl (mean of 3)")
    for phase in range(3):
        value, time_ms = points["phase/acc_total", phase]
        assert value == pytest.approx(accuracy(1, phase))
        assert time_ms == START_MS + 60_000 * (phase + 1) + 2  # the latest of the three
    assert points["phase/acc_total_std", 0][0] == pytest.approx(0.1)
    assert points["final/avg_acc_total", 0][0] == pytest.approx(73.1)
    assert points["seeds/n", 0][0] == 3.0
    tags = shown.tags("icarl (mean of 3)")
    assert tags["imbcil.seeds"] == "0,1,2"
    assert tags["imbcil.role"] == "mean"
    assert "seed" not in tags
    assert "imbcil.run_key" not in tags
    for seed in range(3):
        assert shown.tags(f"icarl s{seed}")["mlflow.parentRunId"] == shown.run_id("icarl (mean of 3)")


def test_means_wait_for_the_last_seed_and_are_logged_once(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    runs = [finish_run(store, 0), start_run(store, 1)]
    add_phase(runs[1], 0)
    for run in runs:
        tracker.deliver(run, "running")
    tracker.deliver_parent(runs)
    assert shown.points("icarl (mean)") == {}
    for phase in (1, 2):
        add_phase(runs[1], phase)
    end_run(runs[1])
    tracker.deliver_parent(runs)
    before = shown.row_counts()
    assert shown.points("icarl (mean of 2)")["seeds/n", 0][0] == 2.0
    tracker.deliver_parent(runs)
    assert shown.row_counts() == before


def test_a_parent_whose_seeds_all_failed_has_failed_until_one_finishes(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    runs = [start_run(store, seed) for seed in (0, 1)]
    add_phase(runs[0], 0)
    for run in runs:
        run.set_state("failed", reason="The disk is full.")
        tracker.deliver(run, "failed")
    assert shown.status("icarl (mean)") == "RUNNING"
    tracker.deliver_parent(runs)
    assert shown.status("icarl (mean)") == "FAILED"
    for phase in range(3):
        add_phase(runs[1], phase)
    end_run(runs[1])
    tracker.deliver(runs[1], "finished")
    tracker.deliver_parent(runs)
    assert shown.status("icarl (mean of 1)") == "FINISHED"


def test_a_run_that_never_got_a_folder_is_passed_over(
    store: Store, tracker: Tracker, shown: Shown, said: list[str]
) -> None:
    assert tracker.deliver_parent([finish_run(store, 0), store.run("never")])
    assert said == []
    assert "icarl (mean of 1)" in shown.names()


def test_a_seed_added_later_gets_a_new_parent_that_takes_the_children_over(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    runs = [finish_run(store, seed) for seed in (0, 1)]
    sync_store(store, tracker.settings, print)
    old = shown.run_id("icarl (mean of 2)")
    runs.append(finish_run(store, 2))
    sync_store(store, tracker.settings, print)
    new = shown.run_id("icarl (mean of 3)")
    assert new != old
    assert shown.query("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", old) == [("deleted",)]
    assert {shown.tags(f"icarl s{seed}")["mlflow.parentRunId"] for seed in range(3)} == {new}
    assert shown.points("icarl (mean of 3)")["phase/acc_total", 0][0] == pytest.approx(accuracy(1, 0))


def test_a_crash_amid_publishing_is_mended_by_the_next_call(
    store: Store, tracker: Tracker, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    runs = [finish_run(store, seed) for seed in (0, 1)]
    for run in runs:
        tracker.deliver(run, "finished")
    with monkeypatch.context() as broken:

        def stop(*_args: object, **_more: object) -> None:
            raise ConnectionError("gone")

        broken.setattr(MlflowClient, "set_terminated", stop)
        assert not tracker.deliver_parent(runs)
    assert tracker.deliver_parent(runs)
    assert shown.names() == ["icarl (mean of 2)", "icarl s0", "icarl s1"]
    assert shown.points("icarl (mean of 2)")["seeds/n", 0][0] == 2.0
    assert shown.status("icarl (mean of 2)") == "FINISHED"


def test_the_newest_finished_attempt_of_a_seed_counts(store: Store, tracker: Tracker, shown: Shown) -> None:
    first = finish_run(store, 0)
    again = start_run(store, 0, run_key=f"{first.path.name}-2", attempt=2)
    for phase in range(3):
        add_phase(again, phase, **{"phase/acc_total": 50.0})
    end_run(again)
    third = start_run(store, 0, run_key=f"{first.path.name}-3", attempt=3)
    add_phase(third, 0, **{"phase/acc_total": 1.0})
    sync_store(store, tracker.settings, print)
    assert shown.points("icarl (mean of 1)")["phase/acc_total", 0][0] == 50.0


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"icarl.temperature": 4.0}},
        {"config": "set:\n  train.lr: 0.5\n"},
        {"memory": "2000"},
        {"family": "family-b"},
        {"order": "ordered"},
        {"recipe": "paper"},
        {"preset": "released"},
        {"code": {"icarl": "2"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_runs_that_differ_in_more_than_their_seed_are_never_averaged(
    store: Store, tracker: Tracker, shown: Shown, changes: dict[str, object]
) -> None:
    finish_run(store, 0)
    finish_run(store, 1, **changes)
    sync_store(store, tracker.settings, print)
    assert shown.query("SELECT count(*) FROM runs WHERE name = 'icarl (mean of 1)'") == [(2,)]
    assert (
        shown.tags("icarl s0")["row"] != shown.tags("icarl s1")["row"]
    )  # so the dashboard keeps them apart, too


def test_runs_whose_seed_changes_the_order_share_a_parent_through_their_family(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    finish_run(store, 0, vary=("order",), digest="a" * 64)
    finish_run(store, 1, vary=("order",), digest="b" * 64)
    sync_store(store, tracker.settings, print)
    assert "icarl (mean of 2)" in shown.names()


def test_what_was_not_measured_for_every_seed_is_named(store: Store, tracker: Tracker, shown: Shown) -> None:
    runs = [start_run(store, seed) for seed in (0, 1)]
    for phase in range(3):
        add_phase(runs[0], phase, **{"phase/acc_few": 1.0})
        add_phase(runs[1], phase)
    for run in runs:
        end_run(run)
    sync_store(store, tracker.settings, print)
    assert ("phase/acc_few", 0) not in shown.points("icarl (mean of 2)")
    assert shown.tags("icarl (mean of 2)")["imbcil.dropped"] == "not measured for every seed: phase/acc_few"
