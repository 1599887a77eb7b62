"""A run's `log.txt`: every event with its time, appended over all restarts, for whoever asks later what happened."""

import time
import traceback
from contextlib import suppress
from pathlib import Path

from imbcil.harness.run_lines import epoch_line, finish_line, phase_line, start_line
from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.view import EpochProgress, RunView


class LoggedView:
    """Writes every event to a file and passes it on. A disk that refuses the log does not stop the run."""

    def __init__(self, view: RunView, path: Path) -> None:
        self._view = view
        self._path = path

    def message(self, text: str) -> None:
        self.note(text)
        self._view.message(text)

    def warning(self, text: str) -> None:
        self.note(f"Warning: {text}")
        self._view.warning(text)

    def run_started(self, info: RunInfo, resumed_at: str) -> None:
        """Also what the run computes on: where two machines differ, this says how."""
        self.note(start_line(info, resumed_at))
        compiled = "backbones compiled" if info.compiled else "backbones not compiled"
        machine = ", ".join(part for part in (info.hardware or info.device, info.precision, compiled) if part)
        self.note(f"  imbcil-bench {info.version}, torch {info.torch_version}; {machine}; {info.command}")
        self._view.run_started(info, resumed_at)

    def epoch(self, progress: EpochProgress) -> None:
        self.note(epoch_line(progress))
        self._view.epoch(progress)

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        self.note(phase_line(info, record))
        self._view.phase_finished(info, record)

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None:
        self.note(finish_line(info, final))
        self._view.run_finished(info, final)

    def note(self, text: str) -> None:
        """A line for the log alone."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError), self._path.open("a", encoding="utf-8", errors="replace") as stream:
            stream.writelines(f"{stamp} {line}\n" for line in text.splitlines())

    def traceback(self, error: BaseException) -> None:
        """Where an unexpected error arose, for the log alone."""
        self.note("".join(traceback.format_exception(error)).rstrip())
