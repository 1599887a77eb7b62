"""`imbcil-bench run`: flags and a config file in, one call out."""

from pathlib import Path
from typing import Any

import click

EXAMPLES = """\b
Examples:
  imbcil-bench run --protocol lfs --n-tasks 10
  imbcil-bench run --protocol lfh --n-tasks 5 --dataset cifar100-lt --method icarl --seeds 0,1,2
  imbcil-bench run --method replay+balanced_softmax --method ./mine.py --memory 2000
  imbcil-bench run --config lfs.yaml --set train.epochs=5 --dry-run
"""


def whole_numbers(text: str) -> tuple[int, ...]:
    """`0,1,2` -> (0, 1, 2)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of whole numbers such as 0,1,2.") from None


@click.command(epilog=EXAMPLES)
@click.option(
    "--protocol", metavar="NAME", help="lfs (default), lfh, ...; see `imbcil-bench list protocols`."
)
@click.option("--dataset", metavar="NAME", help="NAME, or NAME-lt for its long tail; default: glyphs100-lt.")
@click.option(
    "--n-tasks", type=click.IntRange(min=1), help="Number of phases (with a base: of those after it)."
)
@click.option(
    "--base", type=click.IntRange(min=0), help="Classes of the first phase; 0: as many as in the others."
)
@click.option("--step", type=click.IntRange(min=1), help="Classes per phase, instead of --n-tasks.")
@click.option(
    "--sizes",
    type=whole_numbers,
    metavar="N,N,...",
    help="Classes of every phase, instead of the three above: 11,10,10.",
)
@click.option(
    "--order", metavar="ORDER", help="shuffled (default), ordered, random:SEED, or a file of labels."
)
@click.option(
    "--imbalance", type=click.Choice(["exp", "step", "few-shot", "none"]), help="Profile of class sizes."
)
@click.option("--rho", type=click.FloatRange(min=1), help="Largest class over smallest class; default: 100.")
@click.option("--method", "method", metavar="LEARNER[+PLUGIN...]", multiple=True,
              help="A name, name+plugin, or ./file.py; may be repeated.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="One seed; default: 0.")
@click.option("--seeds", type=whole_numbers, metavar="N,N,...", help="Several seeds: 0,1,2.")
@click.option("--vary", type=click.Choice(["model", "order", "sample", "all"]), help="What a seed changes.")
@click.option(
    "--memory", metavar="BUDGET", help="Exemplars: 20/class, 2000 in all, or 0; default: the recipe's."
)
@click.option(
    "--recipe", metavar="NAME|FILE", help="Training settings; default: the dataset's; see `list recipes`."
)
@click.option(
    "--preset", type=click.Choice(["released", "sound"]), help="As the published code does it, or sound."
)
@click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True,
              help="One setting, such as train.epochs=5 or icarl.temperature=1; may be repeated.")  # fmt: skip
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file whose keys are these flags; flags win."
)
@click.option("--device", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "tf32"]), help="Of the backbones.")
@click.option(
    "--compile", "compile_", type=click.Choice(["auto", "on", "off"]), help="Compile the backbones."
)
@click.option("--checkpoint-every", type=click.FloatRange(min=0), metavar="SECONDS",
              help="Default: 60; 0: after every step.")  # fmt: skip
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
@click.option("--force", is_flag=True, default=None, help="Train again what is finished, as a new attempt.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be trained.")
@click.option(
    "--json", "as_json", is_flag=True, help="Results as JSON on standard output, progress on stderr."
)
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

    from imbcil.harness.cli.interrupt import stop_on_signals
    from imbcil.harness.cli.outcome import print_outcome, print_plan
    from imbcil.harness.cli.progress import open_view
    from imbcil.harness.planning import plan_request
    from imbcil.harness.suite import run_request

    if dry_run:
        with open_view(as_json) as view:
            planned = plan_request(request, view)
        print_plan(*planned, as_json=as_json)
        return
    with open_view(as_json) as view, stop_on_signals(view) as stop:
        outcome = run_request(request, view, stop)
    ctx.exit(print_outcome(outcome, request, as_json=as_json))
