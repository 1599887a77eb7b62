"""`imbcil-bench show protocol`: what a learner will meet, before anything is trained."""

from pathlib import Path
from typing import Any

import click

from imbcil.harness.cli.options import (
    data_root_option,
    protocol_options,
    recipe_option,
    set_option,
    vary_option,
)

EXAMPLES = """\b
Examples:
  imbcil-bench show protocol lfs --n-tasks 10
  imbcil-bench show protocol lfs --n-tasks 10 --dataset cifar100-lt --recipe paper --out lfs10.png
  imbcil-bench show protocol lfh --n-tasks 5 --dataset imagenet-subset-lt --order ordered --json
  imbcil-bench show protocol mlcil --split B10-C2 --dataset voc2007
"""


@click.group(no_args_is_help=True)
def command() -> None:
    """What a protocol gives a learner: phases, classes, sizes, digest."""


@command.command("protocol", epilog=EXAMPLES)
@click.argument("protocol", metavar="NAME")
@protocol_options
@recipe_option
@set_option
@click.option("--seed", type=click.IntRange(min=0), default=0, help="With --vary: which order or sample.")
@vary_option
@data_root_option
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw the profile to FILE.png, .pdf or .svg.")
def show_protocol(pairs: tuple[str, ...], seed: int, as_json: bool, out: Path | None, **flags: Any) -> None:
    """Print phases, classes, sizes and digest of protocol NAME. Sizes need no images, the digest does."""
    import json

    from imbcil.harness.cli.request import build_request
    from imbcil.harness.scenario_request import protocol_settings, resolve_recipe, resolved_root
    from imbcil.protocols.describe import scenario_lines, scenario_record
    from imbcil.protocols.scenario import preview_scenario

    request = build_request(flags, None, pairs)
    recipe, said = resolve_recipe(request)
    settings = protocol_settings(request, recipe, seed)
    scenario = preview_scenario(settings, data_root=resolved_root(request.data_root), say=_say)
    for line in said:  # once there is something to show
        _say(line)
    if out is not None:
        from imbcil.protocols.drawing import draw_scenario

        draw_scenario(scenario, out)
        _say(f"Drawn to {out}.")
    record = {**scenario_record(scenario), "recipe": recipe.name}
    click.echo(json.dumps(record, indent=1) if as_json else "\n".join(scenario_lines(scenario)))


def _say(line: str) -> None:
    click.echo(line, err=True)
