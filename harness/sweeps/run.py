"""A sweep from its cells to its outcome: finished runs are skipped, failed ones listed, the rest trained side by side."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue

import torch

from imbcil.harness.planning import planned_images
from imbcil.harness.store.layout import Store
from imbcil.harness.sweep import Cell
from imbcil.harness.sweeps.jobs import Event, Job
from imbcil.harness.sweeps.measure import threads_of
from imbcil.harness.sweeps.messages import deliver
from imbcil.harness.sweeps.pace import SweepPace
from imbcil.harness.sweeps.units import Ended, Unit, UnitView, mark_failed, train_unit
from imbcil.harness.tracking import Tracker
from imbcil.harness.view import EpochProgress, SweepProgress, SweepView

ENDED_BEFORE = "finished", "failed"


@dataclass
class SweepOutcome:
    """What became of each unit, by run key; units that are missing were not reached."""

    cells: Sequence[Cell]
    units: Sequence[Unit]
    store: Store
    ended: dict[str, Ended] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)  # failed earlier and not tried again

    def of_cell(self, cell: int) -> list[Unit]:
        return [unit for unit in self.units if unit.cell == cell]

    def with_status(self, status: str) -> list[Unit]:
        return [
            unit for unit in self.units if unit.key in self.ended and self.ended[unit.key].status == status
        ]

    @property
    def interrupted(self) -> bool:
        """Whether something is left to do for the same command."""
        return any(result.status == "interrupted" for result in self.ended.values()) or any(
            unit.key not in self.ended for unit in self.units
        )

    def cell_status(self, cell: int) -> str:
        """`finished`, `failed`, or `open` while a run of the cell can still go on."""
        found = [self.ended.get(unit.key, Ended("interrupted")).status for unit in self.of_cell(cell)]
        if any(status not in ENDED_BEFORE for status in found):
            return "open"
        return "failed" if "failed" in found else "finished"


class Sweep:
    """Trains what is left of the units, `jobs` at a time. `on_cell` is told the units of each cell that has ended."""

    def __init__(
        self, outcome: SweepOutcome, view: SweepView, tracker: Tracker, jobs: int, stop: threading.Event,
        on_cell: Callable[[Sequence[Unit]], None],
    ) -> None:  # fmt: skip
        self.outcome, self.view, self.tracker = outcome, view, tracker
        self.jobs, self.stop, self.on_cell = jobs, stop, on_cell
        self.pending = [unit for unit in outcome.units if unit.key not in outcome.ended]
        self.running: dict[Job, Unit] = {}
        self.queue: Queue[tuple[Job, Event]] = Queue()
        self.pace = SweepPace(min(jobs, max(len(self.pending), 1)))
        for unit in self.pending:
            self.pace.add(unit.key, unit.run.info.method, planned_images(unit.run.plan, unit.run.scenario))

    def run(self) -> None:
        """Until everything has ended, or until asked to stop and every run is saved."""
        if self.jobs == 1:
            self._one_after_another()
        else:
            self._side_by_side()

    # --- in this process ----------------------------------------------------------------------------------------

    def _one_after_another(self) -> None:
        for unit in self.pending:
            if self.stop.is_set():
                return
            self.pace.started(unit.key)
            view = _PacedView(self.view, unit, self._advanced)
            self._close(unit, train_unit(unit, view, self.tracker, self.stop), ())

    def _advanced(self, unit: Unit, fraction: float, running: Sequence[Unit]) -> None:
        self.pace.advanced(unit.key, fraction)
        self._tell(running)

    # --- in processes of their own ------------------------------------------------------------------------------

    def _side_by_side(self) -> None:
        try:
            asked = False
            while self.running or (self.pending and not self.stop.is_set()):
                while self.pending and len(self.running) < self.jobs and not self.stop.is_set():
                    self._start(self.pending.pop(0))
                if self.stop.is_set() and not asked:
                    asked = True
                    for job in self.running:
                        job.ask_to_stop()
                with suppress(Empty):
                    self._hear(*self.queue.get(timeout=0.2))
        finally:  # also when a second Ctrl-C ends this at once
            for job in self.running:
                job.ask_to_stop()
                job.ask_to_stop()
            for job in self.running:
                job.end()

    def _start(self, unit: Unit) -> None:
        self.pace.started(unit.key)
        request = unit.request.model_copy(update={"device": self._device(unit)})
        self.running[Job(request, unit.key, threads_of(self.jobs), self.queue)] = unit

    def _device(self, unit: Unit) -> str:
        """As asked for; where several GPUs are and none is named, the one with the fewest jobs."""
        count = torch.cuda.device_count() if unit.run.device.type == "cuda" else 1
        if count == 1 or unit.request.device not in ("auto", "cuda"):
            return unit.request.device
        taken = [job.device for job in self.running]
        return min((f"cuda:{number}" for number in range(count)), key=taken.count)

    def _hear(self, job: Job, event: Event) -> None:
        unit = self.running[job]
        kind = event["event"]
        if kind == "exited":
            code = job.end()
            del self.running[job]
            if unit.key not in self.outcome.ended:
                self._close(unit, self._died(job, unit, code), list(self.running.values()))
        elif kind == "ended":
            others = [other for other in self.running.values() if other is not unit]
            self._close(unit, Ended(event["status"], event["reason"]), others)
        elif kind == "printed":
            self.view.message(f"{unit.label}: {event['text']}")
        else:
            if kind == "epoch":
                self._advanced(unit, float(event["fraction"]), list(self.running.values()))
            deliver(dict(event), unit.run.info, UnitView(self.view, unit))

    def _died(self, job: Job, unit: Unit, code: int) -> Ended:
        """A process that ended without a word: the system may have killed it."""
        if self.stop.is_set():
            return Ended("interrupted", "its last checkpoint")
        last = next((line for line in reversed(job.printed) if line.strip()), "it printed nothing")
        how = f"was killed by signal {-code} (for memory?)" if code < 0 else f"ended with exit code {code}"
        return mark_failed(unit.run.folder, f"its process {how}: {last}", self.tracker)

    # --- both ---------------------------------------------------------------------------------------------------

    def _close(self, unit: Unit, result: Ended, running: Sequence[Unit]) -> None:
        self.outcome.ended[unit.key] = result
        self.pace.ended(unit.key)
        if result.status == "failed":
            self.view.warning(f"{unit.label} failed: {result.reason}")
        elif result.status == "busy":
            self.view.message(f"{unit.label} is left to the process that trains it.")
        self._tell(running)
        if self.outcome.cell_status(unit.cell) != "open":
            self.on_cell(self.outcome.of_cell(unit.cell))

    def _tell(self, running: Sequence[Unit]) -> None:
        self.view.sweep(progress(self.outcome, running, self.pace.seconds_left()))


class _PacedView(UnitView):
    """Also tells the sweep how far the run is."""

    def __init__(
        self, view: SweepView, unit: Unit, advanced: Callable[[Unit, float, Sequence[Unit]], None]
    ) -> None:
        super().__init__(view, unit)
        self.advanced = advanced

    def epoch(self, progress: EpochProgress) -> None:
        self.advanced(self.unit, progress.fraction, (self.unit,))
        super().epoch(progress)


def progress(
    outcome: SweepOutcome, running: Sequence[Unit] = (), seconds_left: float | None = None
) -> SweepProgress:
    """How many cells have ended, and how."""
    found = [outcome.cell_status(cell) for cell in sorted({unit.cell for unit in outcome.units})]
    return SweepProgress(
        cells=len(found),
        finished=found.count("finished"),
        failed=found.count("failed"),
        running=tuple(unit.key for unit in running),
        seconds_left=seconds_left,
    )


def ended_before(units: Sequence[Unit], retry_failed: bool) -> dict[str, Ended]:
    """Units that are not to be trained: finished ones, and failed ones unless they are to be tried again."""
    found = {}
    for unit in units:
        folder = unit.run.folder
        if (folder.path / "run.json").exists():
            state = folder.state()
            if state.status == "finished" or (state.status == "failed" and not retry_failed):
                found[unit.key] = Ended(state.status, state.reason)
    return found
