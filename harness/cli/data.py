"""`imbcil-bench data`: which datasets there are, where they come from, and whether they are sound."""

from pathlib import Path
from typing import Any

import click

EXAMPLES = """\b
Examples:
  imbcil-bench data list
  imbcil-bench data download cifar100
  imbcil-bench data import cifar100 --from cifar100.npz
  imbcil-bench data import mine --from my_images/ --kind folder
  imbcil-bench data import voc2007 --from VOCdevkit/
  imbcil-bench data check
"""
ROOT = click.option(
    "--data-root", type=click.Path(path_type=Path), help="Where datasets are cached; default: IMBCIL_DATA."
)


@click.group(no_args_is_help=True, epilog=EXAMPLES)
def command() -> None:
    """List, download, import and check datasets."""


@command.command("list")
@ROOT
@click.option("--json", "as_json", is_flag=True, help="A list of objects with `name`.")
def list_(data_root: Path | None, as_json: bool) -> None:
    """Every dataset: classes, images, and whether it is here."""
    from imbcil.protocols.inventory import inventory, inventory_lines

    items = inventory(data_root)
    if as_json:
        import json

        click.echo(json.dumps(items, indent=1))
        return
    click.echo("\n".join(inventory_lines(items)))


@command.command("download")
@click.argument("name")
@ROOT
def download(name: str, data_root: Path | None) -> None:
    """Fetch dataset NAME with torchvision and import it."""
    from imbcil.protocols.download import download_dataset

    _report(name, download_dataset(name, data_root, _say))


@command.command("import", epilog="A folder holds train/CLASS/ and test/CLASS/; a CSV has the columns path, label, split, or path, labels, "
                 "split with several labels parted by ; or |; an .npz has x_train, y_train, x_test, y_test and, if you "
                 "like, class_names; voc is a development kit, coco a folder in COCO's layout.")  # fmt: skip
@click.argument("name")
@click.option(
    "--from", "path", required=True, type=click.Path(path_type=Path), help="File or folder to import."
)
@click.option(
    "--kind",
    default="auto",
    metavar="auto|npz|folder|csv|voc|coco|...",
    help="What lies there; default: auto.",
)
@click.option(
    "--size", type=click.IntRange(4, 1024), help="Side in pixels to store images at; default: their own."
)
@click.option("--skip-broken", is_flag=True, help="Several labels: leave broken images out, and list them.")
@ROOT
def import_(
    name: str, path: Path, kind: str, size: int | None, skip_broken: bool, data_root: Path | None
) -> None:
    """Make images of your own available as --dataset NAME (and NAME-lt, its long tail)."""
    from imbcil.protocols.library import import_dataset

    _report(name, import_dataset(name, path, kind, data_root, _say, size, skip_broken))


@command.command("check")
@click.argument("names", nargs=-1)
@ROOT
def check(names: tuple[str, ...], data_root: Path | None) -> None:
    """Read every decoded image of the datasets NAMES (default: all) and compare it with its hash."""
    from imbcil.protocols.inventory import check_datasets

    for line in check_datasets(names, data_root, _say):
        click.echo(line)


def _report(name: str, cached: Any) -> None:
    train, test = cached.splits["train"], cached.splits["test"]
    click.echo(
        f"{name}: {len(cached.meta.class_names)} classes, {len(train.labels):,} training and {len(test.labels):,} test images, "
        f"stored at {train.images.shape[1]} pixels. "
        + (
            f"Use it with --dataset {name}, or {name}-lt for a long tail."
            if train.targets is None
            else f"Use it with --protocol mlcil --dataset {name}."
        )
    )


def _say(line: str) -> None:
    click.echo(line, err=True)
