"""`imbcil-bench sweep`: a suite's grid of runs."""

import json
from typing import Any

import click

from imbcil.harness.cli.options import json_option, machine_options, seeds_option, training_options


@click.command(
    epilog="Example: imbcil-bench sweep dgr-ablation --recipe paper-quarter --seeds 0,1,2 --dry-run"
)
@click.argument("suite")
@click.option("--dataset", metavar="NAME", help="Only the suite's columns on this dataset.")
@seeds_option
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
    pairs: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a SUITE: a built-in one by name (dgr-ablation) or a YAML file. Finished runs are skipped."""
    from imbcil.harness.cli.request import read_pairs
    from imbcil.harness.sweep import cells_of, defined_cells, load_suite, run_cells

    given["compile"] = given.pop("compile_")
    cells = cells_of(load_suite(suite), {**given, "set": read_pairs(pairs)}, dataset)
    if dry_run:
        records = [cell.as_json() for cell in cells]
        click.echo(json.dumps({"cells": records}, indent=1) if as_json else "\n".join(map(_line, records)))
        return

    from imbcil.harness.cli.interrupt import stop_on_signals
    from imbcil.harness.cli.outcome import print_outcome
    from imbcil.harness.cli.progress import open_view

    with open_view(as_json) as view, stop_on_signals(view) as stop:
        cells = defined_cells(cells, view.message)
        outcome = run_cells(cells, view, stop)
    ctx.exit(print_outcome(outcome, cells[0].request, as_json=as_json))


def _line(record: dict[str, Any]) -> str:
    changes = ", ".join(f"{path}={value}" for path, value in record["set"].items())
    phases = record.get("n_tasks") or record.get("sizes") or ""
    column = f"{record['protocol']} {phases} on {record['dataset']}, seeds {record['seeds']}"
    reason = f": not defined, {record['not_defined']}" if "not_defined" in record else ""
    return f"{record['learner']}{f' [{changes}]' if changes else ''}, {column}{reason}"
