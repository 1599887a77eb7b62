"""Sweeps on the command line: skipped, failed, retried, stopped and resumed, one after another and side by side."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import all_scores

from imbcil.harness.store.layout import Store

SCRIPT = Path(sys.executable).with_name("imbcil-bench")
QUIET = ("--no-tracking", "--device", "cpu", "--precision", "fp32", "--compile", "off")


def sweep(suite: str, *flags: str, store: str = "store") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), "sweep", suite, "--store", store, *QUIET, *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )


def started(suite: str, *flags: str, store: str = "store") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(SCRIPT), "sweep", suite, "--store", store, *QUIET, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def until(process: subprocess.Popen[str], words: str) -> None:
    """Read the process's lines until one has `words`."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said: {process.stderr.read() if process.stderr else ''}")


def statuses(store: str = "store") -> dict[str, str]:
    return {
        f"{run.info().method} s{run.info().seed}": run.state().status for run in Store(Path(store)).runs()
    }


def scores(store: str) -> dict[str, np.ndarray]:
    return {
        f"{run.path.name}/{name}": value
        for run in Store(Path(store).absolute()).runs()
        for name, value in all_scores(run).items()
    }


def same_scores(first: str, second: str) -> bool:
    one, two = scores(first), scores(second)
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_cells_side_by_side_end_as_they_do_one_after_another(write_suite) -> None:
    suite = write_suite("replay", "icarl", seeds="[0, 1]")
    alone = sweep(suite, "--jobs", "1", store="alone")
    beside = sweep(suite, "--jobs", "2", store="beside")
    assert (alone.returncode, beside.returncode) == (0, 0), alone.stderr + beside.stderr
    assert "2 of 2 cells finished" in alone.stdout
    assert "2 of 2 cells finished" in beside.stdout
    assert set(statuses("beside").values()) == {"finished"}
    assert len(statuses("beside")) == 4
    if os.environ.get("OMP_NUM_THREADS") == "1":  # sums are rounded in the order of the threads
        assert same_scores("alone", "beside")
    again = sweep(suite, "--jobs", "2", store="beside")
    assert "2 cells, 4 runs: 4 finished before, 0 to train." in again.stdout
    assert "starts" not in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_failed_cells_are_listed_left_and_tried_again_on_request(write_suite, broken, jobs: str) -> None:
    method = broken("broken", "raise ValueError('no such luck')")
    suite = write_suite(method, "replay")
    done = sweep(suite, "--jobs", jobs)
    assert done.returncode == 1
    assert statuses() == {"broken s0": "failed", "replay s0": "finished"}
    assert f"Failed: {method} lfs-2 s0: ValueError: no such luck" in done.stderr
    assert "raise ValueError" in done.stderr  # the whole traceback, for whoever wrote the learner
    assert "--retry-failed" in done.stderr
    left = sweep(suite, "--jobs", jobs)
    assert left.returncode == 1
    assert "1 finished before, 0 to train, 1 failed before and left" in left.stdout
    assert "no such luck" in left.stderr
    tried = sweep(suite, "--jobs", jobs, "--retry-failed")
    assert "1 finished before, 1 to train." in tried.stdout
    assert "continues from phase 2 of 2" in tried.stdout


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_cell_and_the_others_go_on(write_suite, broken) -> None:
    method = broken("dying", "import os; os.kill(os.getpid(), 9)")
    done = sweep(write_suite(method, "replay"), "--jobs", "2", "--json")
    assert done.returncode == 1
    assert statuses() == {"dying s0": "failed", "replay s0": "finished"}
    assert (
        f"{method} lfs-2 s0: its process was killed by signal 9 (for memory?): a learner's own words"
        in done.stderr
    )
    assert json.loads(done.stdout)["failures"]  # what a learner prints does not get between


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_stops_all_and_the_same_command_ends_bit_identical(write_suite, jobs: str) -> None:
    suite = write_suite("replay", "icarl", "finetune")
    flags = ("--jobs", jobs, "--set", "train.epochs=40")
    process = started(suite, *flags)
    until(process, "phase 1 of 2 done")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "The same command continues" in err
    assert "Traceback" not in err
    assert not children_of(process.pid)
    assert "running" not in statuses().values()
    assert "finished" not in {*statuses().values()} or len(statuses()) < 3
    rest = sweep(suite, *flags)
    assert rest.returncode == 0, rest.stderr
    whole = sweep(suite, "--jobs", "1", "--set", "train.epochs=40", store="whole")
    assert whole.returncode == 0
    if os.environ.get("OMP_NUM_THREADS") == "1":
        assert same_scores("store", "whole")


@pytest.mark.slow
def test_jobs_end_by_themselves_when_their_parent_is_killed(write_suite) -> None:
    process = started(write_suite("replay", "icarl"), "--jobs", "2", "--set", "train.epochs=4000")
    until(process, "starts")
    children = children_of(process.pid)
    assert children
    process.kill()
    process.wait()
    until_gone = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until_gone:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def children_of(pid: int) -> list[int]:
    """Processes that `pid` started (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def test_bad_input_in_any_cell_is_refused_before_the_first_one_trains(write_suite) -> None:
    done = sweep(write_suite("replay", "{method: icarl, set: {icarl.temperatur: 3}}"), "--jobs", "1")
    assert done.returncode == 2
    assert "did you mean temperature" in done.stderr
    assert not list(Path("store").glob("runs/*"))


def test_a_number_of_jobs_that_is_none_is_refused(write_suite) -> None:
    done = sweep(write_suite("replay"), "--jobs", "0")
    assert done.returncode == 2
    assert "'0' is neither auto nor a number of runs from 1 on" in done.stderr
