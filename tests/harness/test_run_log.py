"""`log.txt`: what a run did, when, over restarts; and it is there for every run."""

import re
import threading
from pathlib import Path

import pytest
from test_suite import Listener, trained

from imbcil.harness.base.errors import RunStopped
from imbcil.harness.run_log import LoggedView
from imbcil.harness.runner import Interrupted
from imbcil.harness.view import EpochProgress


def events(folder: Path) -> list[str]:
    """The log's lines without their time, which is checked."""
    lines = (folder / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    return [line[20:] for line in lines]


def test_a_runs_log_tells_machine_every_epoch_every_phase_and_the_end(tmp_path: Path) -> None:
    said = events(trained(tmp_path, Listener()).runs[0].path)
    assert re.fullmatch(r"replay, seed 0 on sizes-3-1-2 of tiny \(run [0-9a-f]{16}\) starts", said[0])
    assert re.match(
        r"  imbcil-bench \S+, torch \S+; .*, fp32, backbones not compiled; imbcil-bench run ", said[1]
    )
    epochs = [line for line in said if ", epoch " in line]
    assert [re.search(r"phase (\d) of 3, train, epoch (\d) of 2 · ce \d", line).groups() for line in epochs] == [
        (phase, epoch) for phase in "123" for epoch in "12"
    ]  # fmt: skip
    assert sum(" done: seen " in line for line in said) == 3
    assert said[-1].startswith("replay, seed 0 finished: average ")


def test_a_restart_goes_on_in_the_same_log(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        trained(tmp_path, Listener(), stop)
    said = events(trained(tmp_path, Listener()).runs[0].path)
    assert "interrupted: phase 1 of 3, epoch 1, step 1" in said
    assert any(line.endswith("continues from phase 1 of 3, epoch 1, step 1") for line in said)
    assert said.count(said[-1]) == 1


def test_a_failure_is_in_the_log_with_its_reason(tmp_path: Path) -> None:
    recipe = {"train": {"epochs": 4, "batch": 8, "lr": 1e20}}
    with pytest.raises(RunStopped) as stopped:
        trained(tmp_path, Listener(), recipe=recipe)
    (folder,) = (tmp_path / "runs").iterdir()
    assert events(folder)[-1] == f"failed: {stopped.value}"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    view = Listener()
    logged = LoggedView(view, tmp_path / "no folder" / "log.txt")
    logged.epoch(EpochProgress("replay s0", 0, 3, "train", 1, 2))
    logged.warning("careful")
    assert view.said == ["careful"]
