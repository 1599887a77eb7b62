"""From a reader's words to a report, or to the sentence that says why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import Store
from imbcil.reports.collect import StoredRun, collect
from imbcil.reports.exported import export_csv, project_runs, read_exported_file
from imbcil.reports.images import images_at_hand
from imbcil.reports.model import Report
from imbcil.reports.plan import Request, load_layout
from imbcil.reports.tables import build_report

FIRST_RUN = "start one with `imbcil-bench run --protocol lfs --n-tasks 10`"


def requested_report(
    store: Store,
    layout: str | None,
    metrics: Sequence[str],
    *,
    include_recalled: bool = False,
    measured: Sequence[Path] = (),
) -> Report:
    """The tables of a store. Raises BadInput for a store that is not there, unless the layout stands alone.

    A layout also shows what the project measured; `measured` are exported files to be shown besides. A store without a finished run gives a report with a note that says so.
    """
    request = Request(
        metrics=tuple(metrics),
        include_recalled=include_recalled,
        layout=load_layout(layout) if layout else None,
        images_at_hand=images_at_hand,
    )
    if layout is None and not measured:
        require_store(store)
    found = collect(store)
    others = [run for path in measured for run in read_exported_file(path)]
    if layout is not None:
        others += project_runs()
    report = build_report(replace(found, finished=(*found.finished, *others)), request)
    if report.tables:
        return report
    empty = f"No finished run in {store.root}; {FIRST_RUN}."
    return Report((), (empty, *report.notes), report.warnings)


@dataclass(frozen=True)
class Choice:
    """Which runs of a store; empty: all."""

    layout: str | None = None
    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    recipes: Sequence[str] = ()
    columns: Sequence[str] = ()
    presets: Sequence[str] = ()

    def takes(self, run: StoredRun) -> bool:
        info = run.info
        wanted = (
            (self.methods, info.method),
            (self.datasets, info.dataset),
            (self.recipes, info.recipe),
            (self.columns, info.column),
            (self.presets, info.preset),
        )
        if any(allowed and value not in allowed for allowed, value in wanted):
            return False
        return self.layout is None or load_layout(self.layout).takes(run)


def exported(store: Store, choice: Choice, hardware: str = "") -> tuple[str, int, Sequence[str]]:
    """The CSV text of the chosen finished runs, their number, and what could not be read.

    Raises BadInput where there is none: an empty file would pass for a result.
    """
    require_store(store)
    found = collect(store)
    runs = [run for run in found.finished if choice.takes(run)]
    if not runs:
        raise BadInput(f"No finished run of {store.root} fits; `imbcil-bench status` lists them.")
    return export_csv(runs, hardware), len(runs), found.warnings


def require_store(store: Store) -> None:
    """Raises BadInput naming the folder when there is no store."""
    if not (store.root / "runs").is_dir():
        raise BadInput(f"There is no store at {store.root}; name one with --store, or {FIRST_RUN}.")
