"""`imbcil-bench plot`: figures of stored runs for a paper's column, as PNG, PDF or SVG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

EXAMPLES = """\b
Examples:
  imbcil-bench plot forgetting --method finetune --method icarl --out forgetting.pdf
  imbcil-bench plot weight-norms --dataset cifar100-lt --column lfs-10 --out norms.svg
  imbcil-bench plot per-class --method replay --method rebll --out classes.pdf
  imbcil-bench plot predictions 7c2f1ed0baa26de6 --out images.png
  imbcil-bench plot gains --out gains.pdf
"""
OPTIONS = (
    click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store."),
    click.option("--method", "methods", multiple=True, help="Only this learner; repeatable."),
    click.option("--dataset", "datasets", multiple=True, help="Only runs on this dataset."),
    click.option("--column", "columns", multiple=True, metavar="NAME", help="Such as lfs-10 or lfh-5."),
    click.option("--recipe", "recipes", multiple=True, help="Only runs of this recipe."),
    click.option("--preset", "presets", multiple=True, help="Only runs of this preset."),
    click.option("--run", "runs", multiple=True, metavar="KEY", help="Only this run; repeatable."),
    click.option("--seed", type=int, help="Default: each learner's lowest seed."),
    click.option("--out", type=click.Path(path_type=Path), help="FILE.png, .pdf or .svg; default: NAME.png."),
)


@click.group(epilog=EXAMPLES, no_args_is_help=True)
def command() -> None:
    """Figures of finished runs, 8.5 cm wide; runs that MLflow follows have them as artifacts, too."""


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@command.command("weight-norms", epilog=EXAMPLES)
@_with_options
def weight_norms(**flags: Any) -> None:
    """L2 norm of each class's head weights by training count and by phase, old and new classes apart."""
    _plot("weight-norms", **flags)


@command.command("forgetting", epilog=EXAMPLES)
@_with_options
def forgetting(**flags: Any) -> None:
    """Forgetting of each class against its training count, with the correlation; learners side by side."""
    _plot("forgetting", **flags)


@command.command("per-class", epilog=EXAMPLES)
@_with_options
def per_class(**flags: Any) -> None:
    """Accuracy or AP of each class after the last phase, in order of arrival; learners in one panel."""
    _plot("per-class", **flags)


@command.command("predictions", epilog=EXAMPLES)
@click.argument("key", metavar="RUN")
@click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option("--data-root", metavar="FOLDER", help="Where datasets are cached; default: IMBCIL_DATA.")
@click.option("--phase", type=int, help="After which phase, from 0; default: the last finished one.")
@click.option("--images", type=click.IntRange(1, 12), default=6, help="How many; default: 6.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
    help="Labels above it count as said; default: 0.5.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="FILE.png, .pdf or .svg; default: predictions.png."
)
def predictions(
    key: str,
    store: str | None,
    data_root: str | None,
    phase: int | None,
    images: int,
    threshold: float,
    out: Path | None,
) -> None:
    """Test images of a multi-label run with its predictions: right, wrong, missed, and labels of later classes."""
    from imbcil.harness.cli.request import build_request
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.predictions import multi_label_run, plot_predictions

    folder = multi_label_run(Store(store_root(store)), key)
    request = build_request({"data_root": data_root}, folder.config_path, ())
    path = out or Path("predictions.png")
    for line in plot_predictions(folder, request, phase, images, threshold, path):
        click.echo(line, err=True)
    click.echo(f"Drawn to {path}.", err=True)


@command.command("gains", epilog=EXAMPLES)
@click.option("--layout", default="plugins-cil", help="A table of gains; default: plugins-cil.")
@click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option("--dataset", "datasets", multiple=True, help="Only runs on this dataset.")
@click.option("--recipe", "recipes", multiple=True, help="Only runs of this recipe.")
@click.option("--preset", "presets", multiple=True, help="Only runs of this preset.")
@click.option("--out", type=click.Path(path_type=Path), help="FILE.png, .pdf or .svg; default: gains.png.")
def gains(layout: str, store: str | None, out: Path | None, **chosen: Any) -> None:
    """Heat map of what plug-ins add to the bare learners: paired gains, Holm-corrected over the grid."""
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.plots import plot_gains
    from imbcil.reports.request import Choice

    path = out or Path("gains.png")
    for line in plot_gains(Store(store_root(store)), layout, Choice(**chosen), path):
        click.echo(line, err=True)
    click.echo(f"Drawn to {path}.", err=True)


def _plot(name: str, store: str | None, seed: int | None, out: Path | None, **chosen: Any) -> None:
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.plots import plot_runs
    from imbcil.reports.request import Choice

    path = out or Path(f"{name}.png")
    for line in plot_runs(Store(store_root(store)), name, Choice(**chosen), seed, path):
        click.echo(line, err=True)
    click.echo(f"Drawn to {path}.", err=True)
