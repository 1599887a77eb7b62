"""`sync`: everything undelivered, nothing twice, and no run shown as running that nobody trains."""

import shutil
from pathlib import Path

import pytest
from mlflow_sides import Shown
from run_factory import START_MS, add_phase, finish_run, start_run

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, sync_store


def test_a_store_that_was_never_tracked_is_delivered_whole_and_then_not_again(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    for seed in (0, 1):
        finish_run(store, seed)
    finish_run(store, 0, "replay")
    report = sync_store(store, tracker.settings, print)
    assert (report.runs, report.created, report.phases, report.means) == (3, 3, 9, 2)
    assert str(report).startswith("3 runs, 3 delivered (3 new, 9 phases, 18 files), 2 means over seeds")
    before = shown.row_counts()
    assert str(sync_store(store, tracker.settings, print)) == "3 runs, nothing to deliver."
    assert shown.row_counts() == before


def test_a_run_that_nobody_trains_any_more_is_marked_as_killed_at_its_last_phase(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = start_run(store)
    add_phase(run, 0)
    tracker.deliver(run, "running")
    assert sync_store(store, tracker.settings, print).killed == 1
    assert shown.status("icarl s0") == "KILLED"
    assert shown.query("SELECT end_time FROM runs WHERE name = 'icarl s0'") == [(START_MS + 60_000,)]
    assert sync_store(store, tracker.settings, print).killed == 0


def test_a_run_that_a_process_owns_stays_running_and_its_means_wait(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    finish_run(store, 0)
    run = start_run(store, 1)
    with run.owner_lock():
        report = sync_store(store, tracker.settings, print)
    assert (report.killed, report.means) == (0, 0)
    assert shown.status("icarl s1") == "RUNNING"


def test_a_run_whose_folder_is_gone_is_not_shown_as_running_for_ever(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = start_run(store)
    tracker.deliver(run, "running")
    shutil.rmtree(run.path)
    assert sync_store(store, tracker.settings, print).killed == 1
    assert shown.status("icarl s0") == "KILLED"


def test_an_unreadable_run_is_named_and_the_others_are_delivered(
    store: Store, tracker: Tracker, shown: Shown, said: list[str]
) -> None:
    finish_run(store, 0)
    (finish_run(store, 1).path / "phases.jsonl").write_text("broken\n")
    report = sync_store(store, tracker.settings, said.append)
    assert (report.runs, report.unreadable) == (1, 1)
    assert len(said) == 1
    assert "phases.jsonl is damaged" in said[0]
    assert str(report).endswith("; 1 unreadable.")


def test_the_command_reports_what_it_sent(store: Store, cli) -> None:
    finish_run(store)
    done = cli("sync", "--store", store.root)
    assert done.returncode == 0, done.stderr
    assert "1 run, 1 delivered (1 new, 3 phases, 6 files), 1 mean over seeds" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--store", "nowhere"), 2, "There is no store at"),
        (("--tracking-uri", "mlruns"), 2, "--tracking-uri 'mlruns' is no address"),
        (("--tracking-uri", "http://127.0.0.1:9"), 1, "does not answer. Nothing is lost"),
    ],
    ids=["no store", "bad address", "dead server"],
)
def test_what_cannot_be_synced_is_said_in_one_sentence(
    store: Store, cli, tmp_path: Path, arguments: tuple[str, ...], code: int, word: str
) -> None:
    finish_run(store)
    chosen = arguments if "--store" in arguments else ("--store", store.root, *arguments)
    done = cli("sync", *chosen)
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
