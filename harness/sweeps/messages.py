"""What a job's process and its parent say to each other: one JSON object a line."""

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TextIO

from imbcil.harness.request import RunRequest
from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.sweeps.units import Ended
from imbcil.harness.view import EpochProgress, RunView


def order(request: RunRequest, run_key: str, threads: int, probe_seconds: float | None = None) -> str:
    """What a job is started with. `probe_seconds`: only measure how fast the run would train."""
    content = {"request": request.model_dump(mode="json"), "run_key": run_key, "threads": threads}
    return json.dumps({**content, "probe_seconds": probe_seconds}) + "\n"


class EventView:
    """Sends what a run tells to the parent. A parent that is gone must not end a training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.training = False

    def send(self, event: str, **content: Any) -> None:
        with suppress(OSError, ValueError):
            print(json.dumps({"event": event, **content}), file=self._stream, flush=True)

    def message(self, text: str) -> None:
        self.send("message", text=text)

    def warning(self, text: str) -> None:
        self.send("warning", text=text)

    def run_started(self, info: RunInfo, resumed_at: str) -> None:
        self.training = True
        self.send("run_started", info=info.model_dump(mode="json"), resumed_at=resumed_at)

    def epoch(self, progress: EpochProgress) -> None:
        self.send("epoch", **asdict(progress))

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        self.send("phase_finished", record=record.model_dump(mode="json"))

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None:
        self.training = False
        self.send("run_finished", final=final)

    def ended(self, result: Ended) -> None:
        self.send("ended", status=result.status, reason=result.reason)


def deliver(event: dict[str, Any], info: RunInfo, view: RunView) -> None:
    """Tell `view` what a job has sent about the run `info`."""
    kind = event.pop("event")
    if kind == "message":
        view.message(event["text"])
    elif kind == "warning":
        view.warning(event["text"])
    elif kind == "run_started":
        view.run_started(info, event["resumed_at"])
    elif kind == "epoch":
        view.epoch(EpochProgress(**event))
    elif kind == "phase_finished":
        view.phase_finished(info, PhaseRecord.model_validate(event["record"]))
    elif kind == "run_finished":
        view.run_finished(info, event["final"])
