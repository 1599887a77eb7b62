"""`imbcil-bench sweep`: a suite's grid of runs."""

import json
from typing import Any

import click

from imbcil.harness.cli.run import whole_numbers


@click.command(
    epilog="Example: imbcil-bench sweep dgr-ablation --recipe paper-quarter --seeds 0,1,2 --dry-run"
)
@click.argument("suite")
@click.option("--dataset", help="Only the suite's columns on this dataset.")
@click.option(
    "--seeds", type=whole_numbers, metavar="N,N,...", help="Several seeds: 0,1,2; default: the suite's."
)
@click.option("--recipe", metavar="NAME", help="Training settings; default: the suite's or the dataset's.")
@click.option(
    "--preset", type=click.Choice(["released", "sound"]), help="As the published code does it, or sound."
)
@click.option(
    "--set", "pairs", metavar="KEY=VALUE", multiple=True, help="One setting for all cells; may be repeated."
)
@click.option("--device", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:1, mps.")
@click.option(
    "--store", metavar="FOLDER", help="Where runs are kept; default: IMBCIL_STORE or ./imbcil-store."
)
@click.option("--data-root", metavar="FOLDER", help="Where datasets are cached; default: IMBCIL_DATA.")
@click.option(
    "--tracking-uri", metavar="URI", help="MLflow server; default: MLFLOW_TRACKING_URI or the store's."
)
@click.option(
    "--no-tracking", is_flag=True, default=None, help="Log nothing to MLflow; the store has everything."
)
@click.option("--dry-run", is_flag=True, help="List the cells; needs no data.")
@click.option(
    "--json", "as_json", is_flag=True, help="Results as JSON on standard output, progress on stderr."
)
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
    from imbcil.harness.sweep import cells_of, load_suite, run_cells

    cells = cells_of(load_suite(suite), {**given, "set": read_pairs(pairs)}, dataset)
    if dry_run:
        records = [cell.as_json() for cell in cells]
        click.echo(json.dumps({"cells": records}, indent=1) if as_json else "\n".join(map(_line, records)))
        return

    from imbcil.harness.cli.interrupt import stop_on_signals
    from imbcil.harness.cli.outcome import print_outcome
    from imbcil.harness.cli.progress import open_view

    with open_view(as_json) as view, stop_on_signals(view) as stop:
        outcome = run_cells(cells, view, stop)
    ctx.exit(print_outcome(outcome, cells[0].request, as_json=as_json))


def _line(record: dict[str, Any]) -> str:
    changes = ", ".join(f"{path}={value}" for path, value in record["set"].items())
    phases = record.get("n_tasks") or record.get("sizes") or ""
    column = f"{record['protocol']} {phases} on {record['dataset']}, seeds {record['seeds']}"
    return f"{record['learner']}{f' [{changes}]' if changes else ''}, {column}"
