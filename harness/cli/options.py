"""Option lines that several commands share, in groups; each group is one decorator."""

from collections.abc import Callable
from typing import Any

import click

Decorated = Callable[..., Any]
PROFILES = ("exp", "step", "few-shot", "none")


def whole_numbers(text: str) -> tuple[int, ...]:
    """`0,1,2` -> (0, 1, 2)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of whole numbers such as 0,1,2.") from None


def _grouped(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """One decorator that adds `options` in the order written."""

    def add(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return add


protocol_options = _grouped(
    click.option(
        "--dataset", metavar="NAME", help="NAME, or NAME-lt for its long tail; default: the protocol's."
    ),
    click.option(
        "--n-tasks", type=click.IntRange(min=1), help="Number of phases (with a base: of those after it)."
    ),
    click.option(
        "--base", type=click.IntRange(min=0), help="Classes of the first phase; 0: as many as in the others."
    ),
    click.option("--step", type=click.IntRange(min=1), help="Classes per phase, instead of --n-tasks."),
    click.option("--split", metavar="B10-C2", help="Short for --base 10 --step 2 (mlcil)."),
    click.option(
        "--sizes",
        type=whole_numbers,
        metavar="N,N,...",
        help="Classes of every phase, instead of the three above: 11,10,10.",
    ),
    click.option(
        "--order",
        metavar="ORDER",
        help="shuffled (default; mlcil: ordered), ordered, random:SEED, or a file of labels.",
    ),
    click.option("--imbalance", type=click.Choice(PROFILES), help="Profile of class sizes."),
    click.option(
        "--rho", type=click.FloatRange(min=1), help="Largest class over smallest class; default: 100."
    ),
)
"""What a learner meets: dataset, phases, order, profile."""

vary_option = click.option(
    "--vary", type=click.Choice(["model", "order", "sample", "all"]), help="What a seed changes."
)
seeds_option = click.option("--seeds", type=whole_numbers, metavar="N,N,...", help="Several seeds: 0,1,2.")
memory_option = click.option(
    "--memory", metavar="BUDGET", help="Exemplars: 20/class, 2000 in all, or 0; default: the recipe's."
)
recipe_option = click.option(
    "--recipe", metavar="NAME|FILE", help="Training settings; default: the dataset's; see `list recipes`."
)
weights_options = _grouped(
    click.option(
        "--weights", metavar="FILE", help="Backbone to start from: a file, torchvision, timm:MODEL.TAG."
    ),
    click.option(
        "--allow-leaky-weights",
        is_flag=True,
        default=None,
        help="Take weights that saw the data's labels or classes; tables mark the run.",
    ),
)
set_option = click.option(
    "--set",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    help="One setting, such as train.epochs=5 or icarl.temperature=1; may be repeated.",
)
data_root_option = click.option(
    "--data-root", metavar="FOLDER", help="Where datasets are cached; default: IMBCIL_DATA."
)

training_options = _grouped(
    vary_option,
    memory_option,
    recipe_option,
    click.option(
        "--preset", type=click.Choice(["released", "sound"]), help="As the published code does it, or sound."
    ),
    weights_options,
    set_option,
)
"""How a learner is trained."""

machine_options = _grouped(
    click.option("--device", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:1, mps."),
    click.option(
        "--precision", type=click.Choice(["auto", "fp32", "bf16", "tf32"]), help="Of the backbones."
    ),
    click.option(
        "--compile", "compile_", type=click.Choice(["auto", "on", "off"]), help="Compile the backbones."
    ),
    click.option(
        "--checkpoint-every",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Default: 60; 0: after every step.",
    ),
    click.option(
        "--store", metavar="FOLDER", help="Where runs are kept; default: IMBCIL_STORE or ./imbcil-store."
    ),
    data_root_option,
    click.option(
        "--tracking-uri", metavar="URI", help="MLflow server; default: MLFLOW_TRACKING_URI or the store's."
    ),
    click.option(
        "--no-tracking", is_flag=True, default=None, help="Log nothing to MLflow; the store has everything."
    ),
)
"""Where it is trained and kept."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Results as JSON on standard output, progress on stderr."
)
