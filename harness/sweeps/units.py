"""A sweep's runs: each cell with each seed, planned before the first one trains, and tried so that none stops another."""

import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from imbcil.harness.base.errors import ImbcilError, RunStopped
from imbcil.harness.planning import PlannedRun, plan_request
from imbcil.harness.request import RunRequest
from imbcil.harness.runner import Interrupted
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.suite import Outcome, train_run
from imbcil.harness.sweep import Cell
from imbcil.harness.tracking import Tracker
from imbcil.harness.view import EpochProgress, RunView
from imbcil.protocols.scenario import Scenario

Ending = Literal["finished", "failed", "interrupted", "busy"]


@dataclass(frozen=True)
class Unit:
    """One run of a sweep: a cell with one seed."""

    cell: int  # number of the cell, from 0
    label: str  # "icarl lfs-10 s0": tells the units of one sweep apart
    request: RunRequest  # of this run alone
    run: PlannedRun

    @property
    def key(self) -> str:
        return self.run.info.run_key


@dataclass(frozen=True)
class Ended:
    """What became of a unit, and why."""

    status: Ending
    reason: str = ""


def plan_units(cells: Sequence[Cell], view: RunView) -> tuple[Store, list[Unit]]:
    """Every run of every cell, in order; bad input in any cell is refused here, before anything trains.

    A run that two cells share stands once, with the first of them.
    """
    scenarios: dict[str, Scenario] = {}
    once = _SaysOnce(view)
    units: dict[str, Unit] = {}
    store = None
    datasets = {cell.column.dataset for cell in cells}
    for number, cell in enumerate(cells):
        store, planned = plan_request(cell.request, once, scenarios)
        for run in planned:
            place = f"{run.info.column} {run.info.dataset}" if len(datasets) > 1 else run.info.column
            label = f"{cell.name} {place} s{run.info.seed}"
            alone = cell.request.model_copy(update={"seeds": (run.info.seed,)})
            units.setdefault(run.info.run_key, Unit(number, label, alone, run))
    if store is None:
        raise ValueError("A sweep has at least one cell.")
    return store, list(units.values())


def train_unit(unit: Unit, view: RunView, tracker: Tracker, stop: threading.Event | None) -> Ended:
    """Train one unit to its end, whatever that is; only KeyboardInterrupt leaves this function."""
    folder, outcome = unit.run.folder, Outcome(tracker.store)
    try:
        train_run(unit.run, unit.request, view, tracker, outcome, stop)
    except Interrupted as place:
        return Ended("interrupted", str(place))
    except ImbcilError as error:  # the folder says so already
        return Ended("failed", str(error))
    except Exception as error:  # a learner's own mistake: shown whole, and the others go on
        view.warning(f"{unit.label}:\n{traceback.format_exc()}")
        return mark_failed(folder, f"{type(error).__name__}: {_first_line(error)}", tracker)
    return Ended("busy") if outcome.busy else Ended("finished")


def mark_failed(folder: RunFolder, reason: str, tracker: Tracker) -> Ended:
    """Write down that a run ended under way without doing so itself."""
    if (folder.path / "run.json").exists():
        with suppress(RunStopped):
            folder.set_state("failed", reason)
        tracker.deliver(folder, "failed")
    return Ended("failed", reason)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")


class UnitView:
    """Passes on what a unit tells, under its label."""

    def __init__(self, view: RunView, unit: Unit) -> None:
        self.view, self.unit = view, unit
        self.warning, self.run_started = view.warning, view.run_started

    def message(self, text: str) -> None:
        self.view.message(text)

    def epoch(self, progress: EpochProgress) -> None:
        self.view.epoch(replace(progress, run=self.unit.label))

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        self.view.phase_finished(self._labelled(info), record)

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None:
        self.view.run_finished(self._labelled(info), final)

    def _labelled(self, info: RunInfo) -> RunInfo:
        return info.model_copy(update={"method": self.unit.label.rsplit(" ", 1)[0]})


class _SaysOnce:
    """Drops sentences that were said before: forty cells need not repeat one remark."""

    def __init__(self, view: RunView) -> None:
        self.view, self.said = view, set[str]()
        self.run_started, self.epoch = view.run_started, view.epoch
        self.phase_finished, self.run_finished = view.phase_finished, view.run_finished

    def message(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.view.message(text)

    def warning(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.view.warning(text)
