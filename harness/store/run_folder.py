"""One run's folder: `run.json`, `config.yaml`, `phases.jsonl`, `scores/`, `checkpoint/`, `log.txt`, `state.json`."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.base.files import atomic_write, sync_folder
from imbcil.harness.metrics import final_metrics
from imbcil.harness.store.run_info import RunInfo

Status = Literal["running", "finished", "failed", "interrupted"]


class PhaseRecord(Frozen):
    """One line of `phases.jsonl`: what was measured after a phase."""

    phase: int
    time_ms: int
    metrics: dict[str, float]


class RunState(Frozen):
    """How far a run is; `reason` says why it failed or stopped."""

    status: Status
    reason: str = ""
    updated_ms: int = 0
    final: dict[str, float] = {}  # `final/*`, present once finished


class RunFolder:
    """Reads and writes one run's files. Every write is whole or absent after a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoint"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def owner_lock(self) -> FileLock:
        """The lock that the process which trains this run holds; freed by the system when it dies."""
        return FileLock(self.path / "owner.lock")

    def create(self, info: RunInfo, config: str) -> None:
        """Lay the folder out. Raises RunStopped naming the path when it cannot be written."""
        try:
            for folder in (self.path, self.checkpoints, self.path / "scores", self.figures):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunStopped(
                f"Cannot create {self.path}: {error.strerror}. Choose another --store."
            ) from None
        atomic_write(self.config_path, config)
        atomic_write(self.path / "run.json", info.model_dump_json(indent=1))

    def info(self) -> RunInfo:
        return validated(RunInfo, read_json(self.path / "run.json"), str(self.path / "run.json"))

    def state(self) -> RunState:
        """How far the run is. A damaged `state.json` is told from `phases.jsonl`, which is the truth."""
        path = self.path / "state.json"
        if not path.exists():
            return RunState(status="interrupted", reason="never started")
        try:
            return validated(RunState, read_json(path), str(path))
        except BadInput:
            return self._state_from_records()

    def _state_from_records(self) -> RunState:
        records = self.records()
        if len(records) < len(self.info().phases):
            return RunState(status="interrupted", reason="state.json is damaged")
        final = final_metrics([record.metrics for record in records])
        return RunState(status="finished", updated_ms=records[-1].time_ms, final=final)

    def set_state(self, status: Status, reason: str = "", final: Mapping[str, float] | None = None) -> None:
        state = RunState(status=status, reason=reason, updated_ms=now_ms(), final=dict(final or {}))
        atomic_write(self.path / "state.json", state.model_dump_json())

    def records(self) -> list[PhaseRecord]:
        """Finished phases, in order. A last line cut short by a power loss is left out."""
        path = self.path / "phases.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        whole = lines[:-1]  # what follows the last newline was never finished
        return [validated(PhaseRecord, _json(line, path), str(path)) for line in whole if line]

    def append_record(self, record: PhaseRecord) -> PhaseRecord:
        """Add a phase's line, flushed to disk; a phase that already has one keeps its first line."""
        kept = self.records()
        if record.phase < len(kept):
            return kept[record.phase]
        text = "".join(f"{line.model_dump_json()}\n" for line in [*kept, record])
        atomic_write(self.path / "phases.jsonl", text)
        return record

    def scores_path(self, phase: int) -> Path:
        return self.path / "scores" / f"phase-{phase:02d}.npz"

    def save_scores(self, phase: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a phase's scores: `test_rows [N]`, `test_labels [N]`, `test/<predictor> [N, K]`,
        and the same under `holdout_…` where there is a hold-out. Labels are arrival ids."""
        path = self.scores_path(phase)
        aside = path.with_name(f".{path.name}.{os.getpid()}.npz")
        try:
            with aside.open("wb") as stream:
                np.savez(stream, **dict(arrays))  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise RunStopped(
                f"Cannot write {path}: {error.strerror}. Free space or choose another --store."
            ) from error

    def load_scores(self, phase: int) -> dict[str, NDArray[Any]]:
        """The arrays of `save_scores`; no pickle is read. Raises BadInput for a missing or broken file."""
        path = self.scores_path(phase)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
            raise BadInput(f"Cannot read {path}: {error}. Run the same command with --force.") from None


def now_ms() -> int:
    return int(time.time() * 1000)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of ours. Raises BadInput naming the file."""
    try:
        return _json(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is damaged: it is not UTF-8 text.") from None


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is damaged: it holds no JSON.") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} is damaged: it holds no JSON object.")
    return content
