"""`imbcil-bench run`: flags and a config file in, one call out."""

from pathlib import Path
from typing import Any

import click

from imbcil.harness.cli.options import (
    json_option,
    machine_options,
    protocol_options,
    seeds_option,
    training_options,
)

EXAMPLES = """\b
Examples:
  imbcil-bench run --protocol lfs --n-tasks 10
  imbcil-bench run --protocol lfh --n-tasks 5 --dataset cifar100-lt --method icarl --seeds 0,1,2
  imbcil-bench run --method replay+balanced_softmax --method ./mine.py --memory 2000
  imbcil-bench run --config lfs.yaml --set train.epochs=5 --dry-run
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--protocol", metavar="NAME", help="lfs (default), lfh, mlcil, ...; see `imbcil-bench list protocols`."
)
@protocol_options
@click.option("--method", "method", metavar="LEARNER[+PLUGIN...]", multiple=True,
              help="A name, name+plugin, or ./file.py; may be repeated.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="One seed; default: 0.")
@seeds_option
@training_options
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file whose keys are these flags; flags win."
)
@machine_options
@click.option("--force", is_flag=True, default=None, help="Train again what is finished, as a new attempt.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be trained.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    pairs: tuple[str, ...],
    config: Path | None,
    seed: int | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train learners on a protocol and print the table. A stopped run continues where it ended, a finished one is
    not repeated: the same command does both."""
    from imbcil.harness.cli.request import build_request

    flags["compile"] = flags.pop("compile_")
    flags["method"] = flags["method"] or None
    if seed is not None and flags["seeds"] is not None:
        raise click.UsageError("--seed and --seeds exclude each other.")
    flags["seeds"] = (seed,) if seed is not None else flags["seeds"]
    request = build_request(flags, config, pairs)

    from imbcil.harness.cli.outcome import print_outcome, print_plan
    from imbcil.harness.cli.progress import open_view
    from imbcil.harness.interrupt import stop_on_signals
    from imbcil.harness.planning import plan_request
    from imbcil.harness.suite import run_request

    if dry_run:
        with open_view(as_json) as view:
            planned = plan_request(request, view)
        print_plan(*planned, as_json=as_json)
        return
    with open_view(as_json) as view, stop_on_signals(lambda: view.training) as stop:
        outcome = run_request(request, view, stop)
    ctx.exit(print_outcome(outcome, request, as_json=as_json))
