"""How `run` shows its progress: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from imbcil.harness.run_lines import duration, epoch_detail, epoch_line, finish_line, phase_line, start_line
from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.view import EpochProgress, SweepProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 20.0  # plain lines; the first and last epoch of a stage are always shown


@contextmanager
def open_view(quiet_output: bool) -> Iterator["PlainView | LiveView"]:
    """The view for this process. `quiet_output` keeps standard output free for JSON: lines go to stderr."""
    stream = sys.stderr if quiet_output else sys.stdout
    if not stream.isatty():
        yield PlainView(stream)
        return
    with LiveView.shown(stream) as view:
        yield view


class PlainView:
    """One line per event, flushed; at most one epoch's line every few seconds. Survives a closed pipe."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last_line = float("-inf")
        self._last_sweep = ""
        self.training = False  # whether a run has started: from then on, stopping means saving first

    def message(self, text: str) -> None:
        self._print(text)

    def warning(self, text: str) -> None:
        self._print(f"Warning: {text}", sys.stderr)

    def run_started(self, info: RunInfo, resumed_at: str) -> None:
        self.training = True
        self._last_line = float("-inf")
        self._print(start_line(info, resumed_at))

    def epoch(self, progress: EpochProgress) -> None:
        now = self._clock()
        if now - self._last_line >= SECONDS_BETWEEN_LINES or progress.epoch == progress.epochs:
            self._last_line = now
            self._print(epoch_line(progress))

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        self._print(phase_line(info, record))

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None:
        self.training = False
        self._print(finish_line(info, final))

    def sweep(self, progress: SweepProgress) -> None:
        """A line whenever a cell has ended."""
        ended = cells_line(progress)
        if ended != self._last_sweep:
            self._last_sweep = ended
            self._print(sweep_line(progress))

    def _print(self, text: str, stream: TextIO | None = None) -> None:
        with suppress(OSError, ValueError):  # a closed pipe or stream must not end a training
            print(text, file=stream or self._stream, flush=True)


class LiveView:
    """A bar for each run at hand, and one for a sweep's cells; finished phases scroll above them."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}  # by run key
        self._cells: TaskID | None = None
        self.training = False  # as in PlainView

    @classmethod
    @contextmanager
    def shown(cls, stream: TextIO) -> Iterator["LiveView"]:
        """Draw on `stream` until the block ends."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        with Progress(
            *columns, console=Console(file=stream), transient=True, refresh_per_second=4
        ) as progress:
            yield cls(progress)

    def message(self, text: str) -> None:
        self._print(text)

    def warning(self, text: str) -> None:
        self._print(f"Warning: {text}", style="yellow")

    def run_started(self, info: RunInfo, resumed_at: str) -> None:
        self.training = True
        self._print(start_line(info, resumed_at), style="bold")
        self._close_task(info.run_key)
        label = f"{info.method} {info.column} seed {info.seed}"
        self._tasks[info.run_key] = self._progress.add_task(label, total=1.0, detail="")

    def epoch(self, progress: EpochProgress) -> None:
        task = self._tasks.get(progress.run_key)
        if task is not None:
            self._progress.update(task, completed=progress.fraction, detail=epoch_detail(progress))

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        self._print(phase_line(info, record))

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None:
        self.training = False
        self._close_task(info.run_key)
        self._print(finish_line(info, final))

    def sweep(self, progress: SweepProgress) -> None:
        for run_key in set(self._tasks) - set(progress.running):  # they ended some other way than finished
            self._close_task(run_key)
        if self._cells is None:
            self._cells = self._progress.add_task("sweep", total=progress.cells, detail="")
        ended = progress.finished + progress.failed
        self._progress.update(self._cells, completed=ended, detail=sweep_line(progress))

    def _close_task(self, run_key: str) -> None:
        task = self._tasks.pop(run_key, None)
        if task is not None:
            self._progress.remove_task(task)

    def _print(self, text: str, style: str = "") -> None:
        with suppress(OSError, ValueError):
            self._progress.console.print(text, style=style, markup=False, highlight=False)


def cells_line(progress: SweepProgress) -> str:
    """`12 of 48 cells finished, 1 failed`."""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.finished} of {progress.cells} cells finished{failed}"


def sweep_line(progress: SweepProgress) -> str:
    """The same, with the time left."""
    left = f" · {duration(progress.seconds_left)} left" if progress.seconds_left else ""
    return f"{cells_line(progress)}{left}"
