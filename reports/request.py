"""From a reader's words to a report, or to the sentence that says why there is none."""

from collections.abc import Sequence

from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import Store
from imbcil.reports.collect import collect
from imbcil.reports.images import images_at_hand
from imbcil.reports.model import Report
from imbcil.reports.plan import Request, load_layout
from imbcil.reports.tables import build_report

FIRST_RUN = "start one with `imbcil-bench run --protocol lfs --n-tasks 10`"


def requested_report(
    store: Store, layout: str | None, metrics: Sequence[str], *, include_recalled: bool = False
) -> Report:
    """The tables of a store. Raises BadInput for a store that is not there, unless the layout stands alone.

    A store without a finished run gives a report with a note that says so.
    """
    request = Request(
        metrics=tuple(metrics),
        include_recalled=include_recalled,
        layout=load_layout(layout) if layout else None,
        images_at_hand=images_at_hand,
    )
    if layout is None:
        require_store(store)
    report = build_report(collect(store), request)
    if report.tables:
        return report
    empty = f"No finished run in {store.root}; {FIRST_RUN}."
    return Report((), (empty, *report.notes), report.warnings)


def require_store(store: Store) -> None:
    """Raises BadInput naming the folder when there is no store."""
    if not (store.root / "runs").is_dir():
        raise BadInput(f"There is no store at {store.root}; name one with --store, or {FIRST_RUN}.")
