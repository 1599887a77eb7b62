"""Against a real MLflow server on loopback, which goes away in mid-run and comes back."""

import time

import pytest
from mlflow_sides import Server, Shown
from run_factory import PHASES, START_MS, accuracy, add_phase, end_run, finish_run, start_run

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, sync_store
from imbcil.harness.tracking.tracker import PHASE_SECONDS

pytestmark = pytest.mark.slow


def test_a_server_that_goes_away_and_comes_back_misses_and_doubles_nothing(
    store: Store, server: Server, said: list[str]
) -> None:
    shown = Shown(server.database)
    tracker = Tracker(server.settings, store, said.append)
    run = start_run(store, seed=0)
    assert tracker.deliver(run, "running"), said
    add_phase(run, 0)
    assert tracker.deliver(run, "running"), said
    first = shown.run_id("icarl s0")

    server.stop()
    for phase in range(1, PHASES):
        add_phase(run, phase)
        begun = time.monotonic()
        assert not tracker.deliver(run, "running")
        assert time.monotonic() - begun < PHASE_SECONDS + 1
    end_run(run)
    assert not tracker.deliver(run, "finished")
    assert not tracker.deliver_parent([run])
    assert len(said) == 1

    server.start()
    report = sync_store(store, server.settings, said.append)
    assert (report.created, report.phases, report.means) == (0, PHASES - 1, 1)
    points = shown.points("icarl s0")
    assert shown.run_id("icarl s0") == first
    for phase in range(PHASES):
        assert points["phase/acc_total", phase] == (accuracy(0, phase), START_MS + 60_000 * (phase + 1))
    assert len(points) == 3 * 4 + 2 + 2
    assert shown.status("icarl s0") == "FINISHED"
    assert list((server.folder / "files").rglob("figures/accuracy_matrix.png"))
    assert not (store.root / "mlflow-artifacts").exists()
    before = shown.row_counts()
    assert str(sync_store(store, server.settings, said.append)) == "1 run, nothing to deliver."
    assert shown.row_counts() == before


def test_a_server_that_is_back_within_the_run_gets_everything_with_the_next_phase(
    store: Store, server: Server, said: list[str]
) -> None:
    tracker = Tracker(server.settings, store, said.append)
    run = start_run(store, seed=0)
    server.stop()
    add_phase(run, 0)
    assert not tracker.deliver(run, "running")
    server.start()
    add_phase(run, 1)
    assert tracker.deliver(run, "running")
    assert {step for key, step in Shown(server.database).points("icarl s0") if key == "phase/acc_total"} == {
        0,
        1,
    }


def test_two_stores_on_one_server_keep_their_own_runs_and_means(
    store: Store, server: Server, said: list[str], tmp_path
) -> None:
    from run_factory import PhaseRecord, new_store

    other = new_store(tmp_path / "other")
    finish_run(store, 0)
    run = start_run(other, 0)
    run.append_record(PhaseRecord(phase=0, time_ms=START_MS + 9, metrics={"phase/acc_total": 5.0}))
    run.set_state("finished", final={"final/avg_acc_total": 5.0})
    sync_store(store, server.settings, said.append)
    sync_store(other, server.settings, said.append)
    shown = Shown(server.database)
    assert shown.names() == ["icarl (mean of 1)", "icarl (mean of 1)", "icarl s0", "icarl s0"]
    before = shown.row_counts()
    for each in (store, other):
        assert str(sync_store(each, server.settings, said.append)) == "1 run, nothing to deliver."
    assert shown.row_counts() == before
