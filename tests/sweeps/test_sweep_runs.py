"""Sweeps: skipped, failed, retried, stopped and resumed, one after another and side by side in processes."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import all_scores

from imbcil.harness.base.errors import BadInput
from imbcil.harness.cli.main import main
from imbcil.harness.store.layout import Store
from imbcil.harness.sweep import cells_of, load_suite
from imbcil.harness.sweeps import start
from imbcil.harness.sweeps.run import SweepOutcome, progress
from imbcil.harness.view import SilentView, SweepProgress

SCRIPT = Path(sys.executable).with_name("imbcil-bench")
MACHINE = {"no_tracking": True, "device": "cpu", "precision": "fp32", "compile": "off"}


class Log(SilentView):
    """Keeps what is said, and may do something at the first phase's end."""

    def __init__(self, at_phase_end=None) -> None:
        self.said: list[str] = []
        self.progress: list[SweepProgress] = []
        self.at_phase_end = at_phase_end

    def message(self, text: str) -> None:
        self.said.append(text)

    warning = message

    def run_started(self, info, resumed_at: str) -> None:
        self.said.append(f"{info.method} {resumed_at or 'starts'}")

    def phase_finished(self, info, record) -> None:
        if self.at_phase_end is not None:
            self.at_phase_end()

    def sweep(self, progress: SweepProgress) -> None:
        self.progress.append(progress)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are rounded in the order of the threads: the same one everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sweep(
    suite: str, jobs: int, *, store: str = "store", log: Log | None = None, retry: bool = False,
    stop: threading.Event | None = None, **given: object,
) -> SweepOutcome:  # fmt: skip
    log = log or Log()
    cells = cells_of(load_suite(suite), {**MACHINE, "store": store, **given})
    return start.run(start.prepare(suite, cells, log, jobs, retry), log, stop or threading.Event())


def ends(outcome: SweepOutcome) -> dict[str, str]:
    return {unit.label: outcome.ended[unit.key].status for unit in outcome.units if unit.key in outcome.ended}


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
    suite = write_suite("replay", columns=2)
    alone, beside = sweep(suite, 1, store="alone"), sweep(suite, 2, store="beside")
    labels = ["replay lfs-2 s0", "replay lfs-4 s0"]
    assert ends(alone) == ends(beside) == dict.fromkeys(labels, "finished")
    assert list(ends(alone)) == labels
    assert len(scores("alone")) >= 6
    assert same_scores("alone", "beside")


def test_finished_cells_are_skipped_and_the_time_left_is_told(write_suite) -> None:
    log = Log()
    first = sweep(write_suite("replay", "finetune", seeds="[0, 1]"), 1, log=log)
    assert log.said[0] == "2 cells, 4 runs: 0 finished before, 4 to train."
    assert [(p.finished, p.cells) for p in log.progress][-1] == (2, 2)
    assert any(p.seconds_left for p in log.progress)
    log = Log()
    again = sweep("./mine.yaml", 1, log=log)
    assert log.said == ["2 cells, 4 runs: 4 finished before, 0 to train."]
    assert ends(again) == ends(first)
    assert progress(again).finished == 2


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_failed_cells_are_listed_left_and_tried_again_on_request(write_suite, broken, jobs: int) -> None:
    method = broken("broken", "raise ValueError('no such luck')")
    suite = write_suite(method, "replay")
    log = Log()
    done = sweep(suite, jobs, log=log)
    assert ends(done) == {f"{method} lfs-2 s0": "failed", "replay lfs-2 s0": "finished"}
    reason = done.ended[done.units[0].key].reason
    assert re.match(r"broken broke in phase 2 of 2: broken\.py, line \d+: ValueError: no such luck\.", reason)
    folder = done.units[0].run.folder
    assert "raise ValueError('no such luck')" in folder.log_path.read_text()
    assert folder.state().status == "failed"
    assert (progress(done).finished, progress(done).failed) == (1, 1)
    log = Log()
    left = sweep(suite, jobs, log=log)
    assert "1 finished before, 0 to train, 1 failed before and left" in log.said[0]
    assert left.ended[left.units[0].key].reason == reason
    assert len(log.said) == 1  # nothing was started
    if jobs == 1:
        (Path.cwd() / "broken.py").touch()
        log = Log()
        sweep(suite, jobs, log=log, retry=True)
        assert "broken phase 2 of 2" in log.said


def test_the_command_line_lists_what_failed_and_how_to_try_again(write_suite, broken) -> None:
    method = broken("broken", "raise ValueError('no such luck')")
    flags = ["--no-tracking", "--device", "cpu", "--jobs", "1"]
    done = CliRunner().invoke(main, ["sweep", write_suite(method, "replay"), *flags])
    assert done.exit_code == 1
    assert "1 of 2 cells finished, 1 failed" in done.stdout
    said = f"Failed: {method} lfs-2 s0: broken broke in phase 2 of 2: broken.py, line 9: ValueError: no such luck."
    assert said in done.stderr
    assert "--retry-failed tries these again" in done.stderr


@pytest.mark.slow
def test_a_process_that_dies_is_a_failed_cell_and_the_others_go_on(write_suite, broken) -> None:
    method = broken("dying", "import os; os.kill(os.getpid(), 9)")
    log = Log()
    done = sweep(write_suite(method, "replay"), 2, log=log)
    assert ends(done) == {f"{method} lfs-2 s0": "failed", "replay lfs-2 s0": "finished"}
    reason = "its process was killed by signal 9 (for memory?): a learner's own words"
    assert done.ended[done.units[0].key].reason == reason
    assert done.units[0].run.folder.state().reason == reason
    assert f"{method} lfs-2 s0: a learner's own words" in log.said


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stopped_sweep_goes_on_and_ends_bit_identical(write_suite, jobs: int) -> None:
    suite, stop = write_suite("replay", "icarl"), threading.Event()
    settings = {"set": {"train.epochs": 30}}
    stopped = sweep(suite, jobs, stop=stop, log=Log(stop.set), **settings)
    assert stopped.interrupted
    assert "finished" not in ends(stopped).values()
    assert "failed" not in ends(stopped).values()
    log = Log()
    assert set(ends(sweep(suite, jobs, log=log, **settings)).values()) == {"finished"}
    assert any("phase 2 of 2" in text for text in log.said)  # it did not begin anew
    sweep(suite, 1, store="whole", **settings)
    assert same_scores("store", "whole")


def started(suite: str, *flags: str) -> subprocess.Popen[str]:
    """A sweep of two endless cells in a process of its own, up to the moment when both train."""
    process = subprocess.Popen(
        [str(SCRIPT), "sweep", suite, "--no-tracking", "--jobs", "2", "--set", "train.epochs=9999", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    lines = iter(process.stdout)
    for _ in range(2):
        assert any("starts" in line for line in lines), process.stderr.read() if process.stderr else ""
    return process


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", ["ctrl-c", "kill"])
def test_no_process_outlives_its_sweep(write_suite, end: str) -> None:
    process = started(write_suite("replay", "finetune"))
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGINT if end == "ctrl-c" else signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    if end == "ctrl-c":
        assert process.returncode == 130, out + err
        assert "Stopped in the sweep: 0 of 2 cells finished. The same command continues" in err
        assert "Traceback" not in err
        assert {run.state().status for run in Store(Path(os.environ["IMBCIL_STORE"])).runs()} == {
            "interrupted"
        }
    deadline = time.monotonic() + 20
    while children and time.monotonic() < deadline:
        children = [child for child in children if Path(f"/proc/{child}").exists()]
        time.sleep(0.1)
    assert not children


def children_of(pid: int) -> list[int]:
    """Processes that `pid` started and that still run."""
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
    with pytest.raises(BadInput, match="did you mean temperature"):
        sweep(write_suite("replay", "{method: icarl, set: {icarl.temperatur: 3}}"), 1)
    assert not Path("store").exists()


def test_a_number_of_jobs_that_is_none_is_refused(write_suite) -> None:
    done = CliRunner().invoke(main, ["sweep", write_suite("replay"), "--jobs", "0"])
    assert done.exit_code == 2
    assert "'0' is neither auto nor a number of runs from 1 on" in done.stderr
