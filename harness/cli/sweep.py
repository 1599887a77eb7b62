"""`imbcil-bench sweep`: a suite's grid of runs."""

import json
from typing import TYPE_CHECKING, Any

import click

from imbcil.harness.cli.options import json_option, machine_options, seeds_option, training_options

if TYPE_CHECKING:
    from imbcil.harness.sweeps.run import SweepOutcome

EXAMPLES = """\b
Examples:
  imbcil-bench sweep poster --dataset cifar100-lt --seeds 0,1,2 --dry-run
  imbcil-bench sweep poster --preset sound --jobs 2
  imbcil-bench sweep dgr-ablation --recipe paper-quarter --retry-failed
  imbcil-bench sweep ./mine.yaml --set train.epochs=10
"""


def number_of_jobs(text: str) -> int | None:
    """`auto` -> None."""
    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither auto nor a number of runs from 1 on.")


@click.command(epilog=EXAMPLES)
@click.argument("suite")
@click.option("--dataset", metavar="NAME", help="Only the suite's columns on this dataset.")
@seeds_option
@click.option(
    "--jobs", type=number_of_jobs, default="auto", metavar="N|auto",
    help="Runs trained at once; default: as many as a short measurement finds worthwhile.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try runs again that failed before; else they are listed.")
@training_options
@machine_options
@click.option("--dry-run", is_flag=True, help="List the cells; needs no data.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    suite: str,
    dataset: str | None,
    jobs: int | None,
    retry_failed: bool,
    pairs: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a SUITE: a built-in one by name (poster, balanced, dgr-ablation, ...) or a YAML file. Finished runs are
    skipped; a sweep that was stopped continues where it ended."""
    from imbcil.harness.cli.request import read_pairs
    from imbcil.harness.sweep import cells_of, defined_cells, load_suite

    given["compile"] = given.pop("compile_")
    cells = cells_of(load_suite(suite), {**given, "set": read_pairs(pairs)}, dataset)
    if dry_run:
        records = [cell.as_json() for cell in cells]
        lines = [_headline(records), *map(_line, records)]
        click.echo(json.dumps({"cells": records}, indent=1) if as_json else "\n".join(lines))
        return

    from imbcil.harness.cli.progress import open_view
    from imbcil.harness.interrupt import stop_on_signals
    from imbcil.harness.sweeps import start

    with open_view(as_json) as view:
        cells = defined_cells(cells, view.message)
        prepared = start.prepare(suite, cells, view, jobs, retry_failed)
        with stop_on_signals(lambda: True) as stop:
            outcome = start.run(prepared, view, stop)
    ctx.exit(_report(outcome, cells[0].request, as_json=as_json))


def _report(outcome: "SweepOutcome", request: Any, *, as_json: bool) -> int:
    """Print table and what is left to do; the exit code."""
    from imbcil.harness.cli.outcome import print_outcome
    from imbcil.harness.suite import Outcome
    from imbcil.harness.sweeps.run import progress

    failed = [f"{unit.label}: {outcome.ended[unit.key].reason}" for unit in outcome.with_status("failed")]
    where = progress(outcome)
    done = f"{where.finished} of {where.cells} cells finished"
    plain = Outcome(
        outcome.store,
        runs=[unit.run.folder for unit in outcome.units],
        failures=failed,
        busy=[unit.key for unit in outcome.with_status("busy")],
        interrupted=f"the sweep: {done}" if outcome.interrupted else "",
    )
    code = print_outcome(plain, request, as_json=as_json)
    if not as_json:
        click.echo(f"Cells:     {done}{f', {where.failed} failed' if where.failed else ''}")
    for line in failed:
        click.echo(f"Failed: {line}", err=True)
    if failed:
        click.echo("The same command with --retry-failed tries these again.", err=True)
    return code


def _headline(records: list[dict[str, Any]]) -> str:
    """How many cells there are, and what all of them share."""
    undefined = sum("not_defined" in record for record in records)
    apart = f" ({undefined} not defined)" if undefined else ""
    recipe = records[0]["recipe"] or "of each dataset's own"
    memory = records[0]["memory"]
    shared = [f"recipe {recipe}", f"preset {records[0]['preset'] or 'of the recipe'}"]
    return ", ".join([f"{len(records)} cells{apart}", *shared, *([f"memory {memory}"] if memory else [])])


def _line(record: dict[str, Any]) -> str:
    changes = ", ".join(f"{path}={value}" for path, value in record["set"].items())
    phases = record.get("n_tasks") or record.get("sizes") or ""
    profile = f" rho {record['rho']:g}" if record.get("rho") else ""
    split = f"{record['protocol']} {phases}".rstrip()
    column = f"{split} on {record['dataset']}{profile}, seeds {record['seeds']}"
    reason = f": not defined, {record['not_defined']}" if "not_defined" in record else ""
    return f"{record['learner']}{f' [{changes}]' if changes else ''}, {column}{reason}"
