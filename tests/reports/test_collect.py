"""Which runs count, and what becomes of folders that are damaged or not finished."""

import pytest
from fake_runs import add_run, make_store

from imbcil.reports.collect import collect


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def test_the_newest_finished_attempt_counts(store):
    add_run(store, accuracy=10, run_key="a" * 16)
    add_run(store, accuracy=20, run_key="a" * 16 + "-2", attempt=2)
    add_run(store, accuracy=30, run_key="a" * 16 + "-3", attempt=3, status="failed", done=1)
    found = collect(store)
    assert [run.info.attempt for run in found.finished] == [2]
    assert [run.info.attempt for run in found.unfinished] == [3]


def test_an_unfinished_attempt_that_was_finished_later_is_forgotten(store):
    add_run(store, run_key="a" * 16, status="failed", done=1)
    add_run(store, run_key="a" * 16 + "-2", attempt=2)
    assert collect(store).unfinished == ()


def test_final_numbers_come_from_the_phases_not_from_the_state_file(store):
    folder = add_run(store, accuracy=[80, 40])
    folder.set_state("finished", final={"final/avg_acc_task_mean": 99.0})
    assert collect(store).finished[0].final["final/avg_acc_task_mean"] == 60


def test_a_run_says_stopped_when_its_process_is_gone_and_running_while_it_lives(store):
    dead, living = add_run(store, status="running", done=1), add_run(store, seed=1, status="running", done=1)
    for folder in (dead, living):
        folder.owner_lock().acquire()
        folder.owner_lock().release()
    lock = living.owner_lock()
    with lock:
        states = {run.info.seed: run.state for run in collect(store).unfinished}
    assert states == {0: "stopped", 1: "running"}


DAMAGE = {
    "a run.json that is no JSON": ("run.json", "{", "holds no JSON"),
    "a run.json without a field": ("run.json", '{"run_key": "x"}', "missing"),
    "a run.json that is no text": ("run.json", b"\xff\xfe\x00", "UTF-8"),
    "a phase that is no JSON": ("phases.jsonl", "nonsense\n", "holds no JSON"),
    "a phase that is no text": ("phases.jsonl", b"\xff\xfe\n", "holds no JSON"),
    "a metric that is not a number": (
        "phases.jsonl",
        '{"phase": 0, "time_ms": 1, "metrics": {"a": NaN}}\n',
        "metrics",
    ),
    "a phase too few": ("phases.jsonl", "", "0 of 2 phases"),
}


@pytest.mark.parametrize(("file", "content", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_costs_one_sentence_and_no_other_run(store, file, content, said):
    add_run(store, accuracy=33)
    broken = add_run(store, seed=1)
    path = broken.path / file
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    found = collect(store)
    assert [run.info.seed for run in found.finished] == [0]
    (sentence,) = found.warnings
    assert broken.path.name in sentence and said in sentence and "\n" not in sentence


def test_a_damaged_state_file_hides_no_finished_run(store):
    broken = add_run(store, accuracy=33)
    (broken.path / "state.json").write_text('{"status": "asleep"}')
    found = collect(store)
    assert [run.info.run_key for run in found.finished] == [broken.path.name]
    assert not found.warnings


def test_only_the_runs_asked_for_are_read(store):
    wanted = add_run(store).path.name
    add_run(store, seed=1)
    assert [run.info.run_key for run in collect(store, [wanted]).finished] == [wanted]
