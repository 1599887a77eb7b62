"""What `status` shows: every run of a store, how far it is, and its final number."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imbcil.reports.captions import SHORT
from imbcil.reports.collect import StoredRun
from imbcil.reports.plan import MULTI_LABEL, SINGLE_LABEL

STATES = {
    "finished": "finished",
    "running": "running",
    "stopped": "stopped; the same command continues it",
    "failed": "failed",
}
WIDE = 120  # columns
STYLES = {"finished": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}


def progress_record(run: StoredRun) -> dict[str, object]:
    """One run as JSON: identity, state, phases done of all, and all final numbers."""
    info = run.info
    return {
        "run_key": info.run_key,
        "attempt": info.attempt,
        "method": info.method,
        "seed": info.seed,
        "protocol": info.protocol,
        "column": info.column,
        "dataset": info.dataset,
        "embedded": info.embedded,
        "recipe": info.recipe,
        "reduced": info.reduced,
        "preset": info.preset,
        "memory": info.memory,
        "precision": info.precision,
        "state": run.state,
        "reason": run.reason,
        "phases_done": len(run.phases),
        "phases": len(info.phases),
        "final": dict(run.final),
        "command": info.command,
    }


def print_progress(runs: Sequence[StoredRun], where: Path) -> None:
    """The table, why runs failed or stopped, its legend and the count of each state, on standard output."""
    console = Console(highlight=False)
    if not runs:
        console.print(Text(f"No run in {where} yet."))
        return
    console.print(progress_table(runs, console.width))
    for run in _in_order(runs):
        if run.state in ("failed", "stopped") and run.reason:
            said = f"{_short_key(run)} {run.state}: {' '.join(run.reason.split())}"
            console.print(Text(said, style=STYLES[run.state]), soft_wrap=True)
    counts = [f"{sum(run.state == state for run in runs)} {state}" for state in STATES]
    shown = ", ".join(text for text in counts if not text.startswith("0 "))
    names = " or ".join(dict.fromkeys(_headline(run).removeprefix("final/") for run in runs))
    console.print(Text(f"{where}: {shown}. Final: {names}, in percent. Tables: imbcil-bench table"))


def progress_table(runs: Sequence[StoredRun], width: int) -> Table:
    """A rich table, unfinished runs first; narrow terminals get scenario and recipe on two lines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    for name in ("learner", "scenario and recipe"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "phase", "final"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for run in _in_order(runs):
        info = run.info
        scenario = f"{info.column} {info.dataset}{' (embedded)' if info.embedded else ''}"
        recipe = f"{info.recipe}{' (reduced)' if info.reduced else ''}, {info.preset}"
        table.add_row(
            Text(_short_key(run)),
            Text(info.method),
            Text(f"{scenario}{', ' if width >= WIDE else chr(10)}{recipe}"),
            Text(str(info.seed)),
            Text(f"{len(run.phases)} of {len(info.phases)}"),
            Text(_final(run)),
            Text(STATES[run.state], style=STYLES[run.state]),
        )
    return table


def _short_key(run: StoredRun) -> str:
    """Eight digits that a person can find in `runs/`, and the mark of a later attempt."""
    return run.base_key[:SHORT] + (f"-{run.info.attempt}" if run.info.attempt > 1 else "")


def _final(run: StoredRun) -> str:
    value = run.final.get(_headline(run))
    return "" if value is None else f"{value:.2f}"


def _headline(run: StoredRun) -> str:
    """The metric that the papers of the run's kind print."""
    return (MULTI_LABEL if run.info.label_kind == "multi" else SINGLE_LABEL)[0]


def _in_order(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Unfinished runs first, then by age."""
    return sorted(runs, key=lambda run: (run.state == "finished", run.info.created_ms, run.info.run_key))
