"""A sweep's own run: one, whatever happens, with a table of its cells and marks on its members."""

from run_factory import accuracy, add_phase, end_run, finish_run, start_run

from imbcil.harness.store.layout import Store
from imbcil.harness.store.sweep_record import RecordedCell, record_sweep, sweep_records
from imbcil.harness.tracking import Tracker, sync_store


def recorded(store: Store, runs: dict[str, list]):
    cells = [
        RecordedCell(name=name, column="lfs-3 glyphs6-lt", runs=tuple(run.path.name for run in members))
        for name, members in runs.items()
    ]
    return record_sweep(store, "mine", cells)


def test_a_sweep_is_one_run_that_follows_its_cells(store: Store, tracker: Tracker, shown) -> None:
    icarl = [finish_run(store, seed) for seed in (0, 1)]
    wa = start_run(store, 0, "wa")
    record = recorded(store, {"icarl": icarl, "wa": [wa]})
    for run in (*icarl, wa):
        tracker.deliver(run, run.state().status)
    tracker.deliver_parent(icarl)
    assert tracker.deliver_sweep(record, running=True)
    assert shown.status("sweep mine") == "RUNNING"
    tags = shown.tags("sweep mine")
    assert (tags["imbcil.role"], tags["imbcil.runs"], tags["imbcil.finished"]) == ("sweep", "3", "2")
    mean = sum(accuracy(seed, phase) for seed in (0, 1) for phase in range(3)) / 6
    assert f"| icarl | {mean:.2f} |" in tags["mlflow.note.content"]
    assert "| wa |  |" in tags["mlflow.note.content"]
    sweep = shown.run_id("sweep mine")
    for member in ("icarl s0", "icarl s1", "icarl (mean of 2)", "wa s0"):
        assert shown.tags(member)["imbcil.sweep_run"] == sweep
        assert shown.tags(member)["imbcil.sweep"] == "mine"

    for phase in range(3):
        add_phase(wa, phase)
    end_run(wa)
    assert tracker.deliver_sweep(record, running=False)
    assert shown.status("sweep mine") == "FINISHED"
    assert shown.run_id("sweep mine") == sweep
    before = shown.row_counts()
    assert tracker.deliver_sweep(record, running=False)
    assert shown.row_counts() == before


def test_a_stopped_sweep_is_shown_as_stopped_and_a_failed_cell_as_failed(
    store: Store, tracker: Tracker, shown
) -> None:
    record = recorded(store, {"icarl": [finish_run(store, 0)], "wa": [start_run(store, 0, "wa")]})
    tracker.deliver_sweep(record, running=False)
    assert shown.status("sweep mine") == "KILLED"
    store.run(record.run_keys[1]).set_state("failed", "no luck")
    tracker.deliver_sweep(record, running=False)
    assert shown.status("sweep mine") == "FAILED"
    assert "| wa | failed |" in shown.tags("sweep mine")["mlflow.note.content"]


def test_sync_rebuilds_a_sweep_and_a_second_one_changes_nothing(
    store: Store, tracker: Tracker, shown
) -> None:
    record = recorded(store, {"icarl": [finish_run(store, seed) for seed in (0, 1)]})
    sync_store(store, tracker.settings, print)
    assert shown.status("sweep mine") == "FINISHED"
    before = shown.row_counts()
    sync_store(store, tracker.settings, print)
    assert shown.row_counts() == before
    assert record_sweep(store, "mine", record.cells) == record  # the same cells are the same sweep
    assert sweep_records(store) == [record]


def test_a_damaged_record_hides_no_other_one(store: Store) -> None:
    record = recorded(store, {"icarl": [finish_run(store, 0)]})
    (store.root / "sweeps" / "0.json").write_text("{ half")
    assert sweep_records(store) == [record]
