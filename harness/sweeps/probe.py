"""How fast a run trains here: its real steps for a few seconds, in a folder that is thrown away."""

import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from imbcil.harness.loop import StageContext
from imbcil.harness.planning import PlannedRun
from imbcil.harness.request import RunRequest
from imbcil.harness.runner import Runner, Setting
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.suite import build_setting
from imbcil.harness.sweeps.messages import EventView
from imbcil.harness.view import SilentView


class _Enough(Exception):
    """The measurement is over."""


class _TimedRunner(Runner):
    """Trains until its time is up; its first step warms up, and then it waits for the others."""

    def __init__(self, setting: Setting, seconds: float, view: EventView) -> None:
        super().__init__(setting)
        self.seconds, self.events = seconds, view
        self.trained, self.began = 0, 0.0

    def save(self, context: StageContext | None = None) -> None:
        """A measurement leaves nothing behind."""

    def _after_step(self, context: StageContext, images: int) -> None:
        if not self.began:
            self._synchronise()
            self.events.send("ready")
            sys.stdin.readline()
            self.began = time.monotonic()
            return
        self.trained += images
        if time.monotonic() - self.began >= self.seconds:
            raise _Enough

    def _synchronise(self) -> None:
        if self.s.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.s.runtime.device)

    def measure(self) -> dict[str, float]:
        """Images trained and seconds that it took."""
        with suppress(_Enough):
            self.run()
        self._synchronise()
        return {"images": float(self.trained), "seconds": time.monotonic() - self.began}


def measured(run: PlannedRun, request: RunRequest, seconds: float, view: EventView) -> dict[str, float]:
    """Train `run` for `seconds`, uncompiled and untracked."""
    with tempfile.TemporaryDirectory(prefix="imbcil-") as aside:
        folder = RunFolder(Path(aside) / "run")
        info = run.info.model_copy(update={"compiled": False})
        folder.create(info, run.config)
        setting = build_setting(replace(run, info=info, folder=folder), request, SilentView(), None)
        return _TimedRunner(setting, seconds, view).measure()
