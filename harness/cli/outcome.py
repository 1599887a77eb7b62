"""What `run` says when it ends: the table, where the runs are, how to open the dashboard; or the plan."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from imbcil.harness.planning import PlannedRun
from imbcil.harness.request import RunRequest
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.suite import Outcome

STOPPED, INTERRUPTED = 1, 130  # exit codes


def print_plan(store: Store, planned: Sequence[PlannedRun], *, as_json: bool) -> None:
    """One line per run that the request means, and how far it is already."""
    if as_json:
        click.echo(
            json.dumps({"store": str(store.root), "runs": [_planned(run) for run in planned]}, indent=1)
        )
        return
    for run in planned:
        info = run.info
        click.echo(
            f"{info.method}, seed {info.seed} on {info.column} of {info.dataset}: recipe {info.recipe}, "
            f"preset {info.preset}, memory {info.memory}, {info.precision}{', compiled' if info.compiled else ''}, "
            f"{info.device}; run {info.run_key}, {_progress(run.folder)}"
        )
    count = "One run" if len(planned) == 1 else f"{len(planned)} runs"
    click.echo(f"{count} in {store.root}; nothing was trained.")


def print_outcome(outcome: Outcome, request: RunRequest, *, as_json: bool) -> int:
    """Print the results and return the exit code: 0 done, 1 a run stopped under way, 130 interrupted."""
    if as_json:
        click.echo(json.dumps(_as_json(outcome), indent=1))
    else:
        _print_table(outcome)
        for line in _where(outcome.store, request):
            click.echo(line)
    if outcome.interrupted:
        click.echo(f"Stopped in {outcome.interrupted}. The same command continues from there.", err=True)
        return INTERRUPTED
    return STOPPED if outcome.failures else 0


def _print_table(outcome: Outcome) -> None:
    from rich.console import Console

    from imbcil.reports import summary_table

    finished = [run.path.name for run in outcome.runs if run.state().status == "finished"]
    if finished:
        Console(highlight=False).print(summary_table(outcome.store, finished))


def _where(store: Store, request: RunRequest) -> list[str]:
    """Where the runs are and what opens the dashboard, as commands to copy."""
    from imbcil.harness.tracking import resolve_tracking

    folder = _shown(store.root)
    flag = "" if folder == "imbcil-store" else f" --store {folder}"
    lines = [f"Runs:      {folder}/runs  (imbcil-bench status{flag}; imbcil-bench table{flag})"]
    tracking = resolve_tracking(store, request.tracking_uri, disabled=request.no_tracking)
    if tracking.uri is None:
        return [*lines, f"Dashboard: imbcil-bench sync{flag}, then imbcil-bench ui{flag}"]
    return [
        *lines,
        f"Dashboard: imbcil-bench ui{flag}" if tracking.embedded else f"Dashboard: {tracking.shown}",
    ]


def _shown(path: Path) -> str:
    """Relative to the current folder where it lies inside; quoted where a shell would split it."""
    import shlex

    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "store": str(outcome.store.root),
        "runs": [_result(run) for run in outcome.runs if (run.path / "run.json").exists()],
        "failures": outcome.failures,
        "busy": outcome.busy,
        "interrupted": outcome.interrupted,
    }


def _result(run: RunFolder) -> dict[str, Any]:
    info, state = run.info(), run.state()
    return {
        "run_key": info.run_key, "method": info.method, "seed": info.seed, "status": state.status,
        "reason": state.reason, "phases_done": len(run.records()), "phases": len(info.phases), "final": state.final,
        "recipe": info.recipe, "preset": info.preset, "digest": info.digest, "folder": str(run.path),
    }  # fmt: skip


def _planned(run: PlannedRun) -> dict[str, Any]:
    info = run.info
    return {
        "run_key": info.run_key, "method": info.method, "seed": info.seed, "column": info.column,
        "dataset": info.dataset, "recipe": info.recipe, "preset": info.preset, "memory": info.memory,
        "precision": info.precision, "compiled": info.compiled, "device": info.device, "digest": info.digest,
        "settings": info.settings, "state": _progress(run.folder),
    }  # fmt: skip


def _progress(folder: RunFolder) -> str:
    if not (folder.path / "run.json").exists():
        return "new"
    status, done = folder.state().status, len(folder.records())
    return "finished" if status == "finished" else f"{done} phases done"
