"""The two halves of `imbcil-bench sweep`: planning, where a signal ends at once, and training, where it saves."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imbcil.harness.store.sweep_record import RecordedCell, SweepRecord, record_sweep
from imbcil.harness.sweep import Cell
from imbcil.harness.sweeps.measure import choose_jobs
from imbcil.harness.sweeps.run import Sweep, SweepOutcome, ended_before, progress
from imbcil.harness.sweeps.units import Unit, plan_units
from imbcil.harness.tracking import Tracker, resolve_tracking
from imbcil.harness.view import SweepView


@dataclass(frozen=True)
class Prepared:
    """A sweep that is ready to train."""

    record: SweepRecord
    outcome: SweepOutcome
    jobs: int


def prepare(
    suite: str, cells: Sequence[Cell], view: SweepView, jobs: int | None, retry_failed: bool
) -> Prepared:
    """Plan every run and choose how many to train at once (`jobs` None: by measurement).

    Raises BadInput for anything wrong in any cell; nothing was trained then.
    """
    store, units = plan_units(cells, view)
    store.prepare()
    outcome = SweepOutcome(cells, units, store, ended_before(units, retry_failed))
    left = [unit for unit in units if unit.key not in outcome.ended]
    view.message(_opening(outcome, left))
    chosen = choose_jobs(left, view) if jobs is None else min(jobs, max(len(left), 1))
    return Prepared(record_sweep(store, Path(suite).stem, _recorded(outcome)), outcome, chosen)


def _recorded(outcome: SweepOutcome) -> list[RecordedCell]:
    """Cells as the store keeps them."""
    found = []
    for number, cell in enumerate(outcome.cells):
        units = outcome.of_cell(number)
        if units:
            info = units[0].run.info
            keys = tuple(unit.key for unit in units)
            found.append(RecordedCell(name=cell.name, column=f"{info.column} {info.dataset}", runs=keys))
    return found


def _opening(outcome: SweepOutcome, left: Sequence[Unit]) -> str:
    finished, failed = (len(outcome.with_status(status)) for status in ("finished", "failed"))
    cells = progress(outcome).cells
    return (
        f"{cells} cells, {len(outcome.units)} runs: {finished} finished before, {len(left)} to train"
        f"{f', {failed} failed before and left (see --retry-failed)' if failed else ''}."
    )


def run(prepared: Prepared, view: SweepView, stop: threading.Event) -> SweepOutcome:
    """Train what is left; a cell's means, and the sweep's own run, go to MLflow as soon as its seeds have ended."""
    outcome = prepared.outcome
    request = outcome.units[0].request
    tracking = resolve_tracking(outcome.store, request.tracking_uri, disabled=request.no_tracking)
    tracker = Tracker(tracking, outcome.store, view.warning)

    def on_cell(units: Sequence[Unit]) -> None:
        tracker.deliver_parent([unit.run.folder for unit in units])
        tracker.deliver_sweep(prepared.record, running=True)

    tracker.deliver_sweep(prepared.record, running=True)
    try:
        Sweep(outcome, view, tracker, prepared.jobs, stop, on_cell).run()
    finally:
        tracker.deliver_sweep(prepared.record, running=False)
    return outcome
