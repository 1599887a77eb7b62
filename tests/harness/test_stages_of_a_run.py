"""Stages in a run: work around them, restarts, a request to stop, a full disk."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from opened import changed
from tiny import tiny_runner

from imbcil.harness.base.errors import RunStopped
from imbcil.harness.loop import (
    StageContext,
)
from imbcil.harness.runner import Interrupted, Runner
from imbcil.harness.store import checkpoint

STAGED = '''
import torch
from imbcil.harness.contract import Group, Learner, Optimisation, Pool, Stage

class Staged(Learner):
    """A stage with work around it, one without rows, and one whose pool is drawn when it opens."""

    def note(self, word):
        self.state.setdefault("log", []).append(word)

    def drawn(self):
        self.note("pool")
        return Pool.of_new(self.state["rows"].clone(), torch.zeros(4, dtype=torch.int64))

    def begin_phase(self, phase):
        super().begin_phase(phase)
        self.state["rows"] = phase.new.index[:1].repeat(4).clone()

    def stages(self, phase):
        optim = Optimisation(epochs=1, batch=2)
        return [
            Stage("first", phase.new, optim, begin=lambda: self.note("begin"), end=lambda: self.note("end")),
            Stage("empty", Pool.empty(), optim, begin=lambda: self.note("empty begin"), end=lambda: self.note("no")),
            Stage("second", self.drawn, optim, train=(Group("head"),)),
        ]
'''


class Talking:
    """A view that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.message = self.warning = self.told.append

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def staged(tmp_path: Path, store: str = "store", **options: Any) -> Runner:
    (tmp_path / "staged.py").write_text(STAGED)
    runner = tiny_runner(f"{tmp_path}/staged.py", tmp_path / store, **options)
    runner.s.view = Talking()
    return runner


def test_work_around_stages_is_done_once_and_a_stage_without_rows_is_skipped_with_a_word(tmp_path: Path):
    runner = staged(tmp_path)
    runner.run()
    assert runner.learner.state["log"] == ["begin", "end", "empty begin", "pool"] * 3
    assert runner.s.view.told == [
        f"phase {t} of 3: stage empty has no rows and is skipped" for t in (1, 2, 3)
    ]


@pytest.mark.parametrize("stage", ["first", "second"])
def test_after_a_restart_a_stage_neither_begins_again_nor_draws_its_pool_again(tmp_path: Path, stage: str):
    class Killed(Exception):
        pass

    whole = staged(tmp_path, "whole")
    whole.run()
    runner = staged(tmp_path, every=0)
    original = runner.save

    def save(context: Any = None) -> None:
        original(context)
        if context is not None and context.stage.name == stage:
            raise Killed

    runner.save = save  # type: ignore[method-assign]
    with pytest.raises(Killed):
        runner.run()
    again = staged(tmp_path)
    again.run()
    assert again.learner.state["log"] == whole.learner.state["log"]
    mine, theirs = again.learner.net.state_dict(), whole.learner.net.state_dict()
    assert changed(mine, theirs) == set()


def test_a_run_that_is_asked_to_stop_saves_says_where_and_goes_on(tmp_path: Path):
    whole, runner = tiny_runner("replay", tmp_path / "whole"), tiny_runner("replay", tmp_path / "stopped")
    whole.run()
    runner.s.stop = threading.Event()
    original = runner._after_step

    def after_step(context: StageContext, images: int) -> None:
        if (runner.place.phase, context.position.epoch, context.position.step) == (1, 1, 1):
            runner.s.stop.set()
        original(context, images)

    runner._after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="phase 2 of 3, epoch 2, step 1"):
        runner.run()
    again = tiny_runner("replay", tmp_path / "stopped")
    again.run()
    assert changed(whole.learner.net.state_dict(), again.learner.net.state_dict()) == set()


def test_a_disk_that_fills_up_stops_the_run_and_it_goes_on_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, runner = (
        tiny_runner("replay", tmp_path / "whole"),
        tiny_runner("replay", tmp_path / "full", every=0),
    )
    whole.run()
    write, left = checkpoint._write, iter(range(25))

    def full(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(RunStopped, match="No space left on device") as stop:
        runner.run()
    assert stop.value.exit_code == 1
    monkeypatch.undo()
    again = tiny_runner("replay", tmp_path / "full")
    assert again.run()[0].phase == 0
    assert changed(whole.learner.net.state_dict(), again.learner.net.state_dict()) == set()
