"""The table that `run` prints when it ends: its own runs, and what papers printed."""

from collections.abc import Iterable

from imbcil.harness.store.layout import Store
from imbcil.reports.collect import collect
from imbcil.reports.plan import Request
from imbcil.reports.render.terminal import TerminalReport
from imbcil.reports.tables import build_report


def summary_table(store: Store, run_keys: Iterable[str]) -> TerminalReport:
    """A rich renderable with the runs of `run_keys` (folder names) alone, beside published rows."""
    return TerminalReport(build_report(collect(store, run_keys), Request()))
