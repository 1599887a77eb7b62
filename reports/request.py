"""From a reader's words to a report, or to the sentence that says why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import Store
from imbcil.reports.collect import Collection, StoredRun, collect
from imbcil.reports.comparison import build_comparison
from imbcil.reports.exported import export_csv, project_runs, read_exported_file
from imbcil.reports.gains import build_gains
from imbcil.reports.images import images_at_hand
from imbcil.reports.model import Report
from imbcil.reports.plan import Request, load_gain_layout, load_layout
from imbcil.reports.tables import build_report

FIRST_RUN = "start one with `imbcil-bench run --protocol lfs --n-tasks 10`"


@dataclass(frozen=True)
class Wish:
    """What `table` was asked for."""

    layout: str | None = None
    metrics: Sequence[str] = ()
    include_recalled: bool = False
    interval: bool = False  # half-widths of 95 % intervals instead of standard deviations
    compare: str | None = None  # a learner: differences from it instead of values
    measured: Sequence[Path] = ()  # exported files, shown besides


def requested_report(store: Store, wish: Wish) -> Report:
    """The tables of a store. Raises BadInput for a store that is not there, unless a layout or file stands alone.

    A layout also shows what the project measured. A store without a finished run gives a report with a note that
    says so.
    """
    if wish.layout is None and not wish.measured:
        require_store(store)
    found = with_others(collect(store), wish)
    gains = load_gain_layout(wish.layout) if wish.layout else None
    if gains is not None:
        if wish.compare or wish.metrics:
            raise BadInput(
                f"The table {wish.layout} has its own metric and comparison; leave --metric and --compare out."
            )
        return build_gains(found, gains)
    request = Request(
        metrics=tuple(wish.metrics),
        include_recalled=wish.include_recalled,
        interval=wish.interval,
        layout=load_layout(wish.layout) if wish.layout else None,
        images_at_hand=images_at_hand,
    )
    if wish.compare is not None and found.finished:
        return build_comparison(found, request, wish.compare)
    report = build_report(found, request)
    if report.tables:
        return report
    empty = f"No finished run in {store.root}; {FIRST_RUN}."
    return Report((), (empty, *report.notes), report.warnings)


def with_others(found: Collection, wish: Wish) -> Collection:
    """A store's runs with those of exported files and, for a layout, those that the project measured."""
    others = [run for path in wish.measured for run in read_exported_file(path)]
    if wish.layout is not None:
        others += project_runs()
    return replace(found, finished=(*found.finished, *others))


@dataclass(frozen=True)
class Choice:
    """Which runs of a store; empty: all."""

    layout: str | None = None
    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    recipes: Sequence[str] = ()
    columns: Sequence[str] = ()
    presets: Sequence[str] = ()
    runs: Sequence[str] = ()  # run keys

    def takes(self, run: StoredRun) -> bool:
        info = run.info
        wanted = (
            (self.methods, info.method),
            (self.datasets, info.dataset),
            (self.recipes, info.recipe),
            (self.columns, info.column),
            (self.presets, info.preset),
            (self.runs, info.run_key),
        )
        if any(allowed and value not in allowed for allowed, value in wanted):
            return False
        if self.layout is None:
            return True
        return (load_gain_layout(self.layout) or load_layout(self.layout)).takes(run)


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
