"""Food-101 from the official folder: images/CLASS/*.jpg and meta/train.txt, meta/test.txt."""

from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.pictures import Listing, listed_source
from imbcil.protocols.datasets.source import SPLITS, Source

LARGEST_LIST = 16 << 20  # bytes


def read_food101(path: Path, size: int | None) -> Source:
    """Food-101 in the official split: 750 training and 250 test images of each of 101 classes, in list order.

    `path`: the folder food-101, or the one above it. Raises BadInput naming what is missing or malformed.
    """
    root = path if (path / "meta").is_dir() else path / "food-101"
    lists = {split: _names(root / "meta" / f"{split}.txt") for split in SPLITS}
    classes = tuple(sorted({name.split("/")[0] for name in lists["train"]}))
    label = {name: number for number, name in enumerate(classes)}
    listings = {}
    for split, names in lists.items():
        strangers = [name for name in names if name.split("/")[0] not in label]
        if strangers:
            raise BadInput(
                f"{root / 'meta' / split}.txt: {strangers[0]} has a class without training images."
            )
        listings[split] = Listing(
            tuple(f"images/{name}.jpg" for name in names), tuple(label[name.split("/")[0]] for name in names)
        )
    return listed_source(root, listings, classes, size, "food101")


def _names(path: Path) -> list[str]:
    """`class/number` of each line."""
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise BadInput(f"{path} is larger than 16 MiB; that is not Food-101's list.")
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    for name in names:
        parts = name.split("/")
        if len(parts) != 2 or not all(part.replace("_", "").isalnum() for part in parts):
            raise BadInput(f"{path}: {name!r} is not of the form class/number.")
    return names
