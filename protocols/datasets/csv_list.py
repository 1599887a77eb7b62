"""A user's CSV with the columns path, label, split: one image a line, paths relative to the CSV's folder.
A file with the column `labels` instead of `label` is read by csv_multi.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.faults import check_folders, check_inside, checked_path
from imbcil.protocols.datasets.pictures import Listing, listed_source
from imbcil.protocols.datasets.source import Source

COLUMNS = ("path", "label", "split")
SPLIT_WORDS = {"train": "train", "test": "test", "val": "test"}
LARGEST_CSV = 256 << 20  # bytes


def read_csv_list(path: Path, size: int | None = None) -> Source:
    """The dataset in a CSV; labels are names or whole numbers, rows keep the file's order.

    Raises BadInput naming the line for a missing column, an unknown split, or a path that leaves the folder, by a
    link too.
    """
    root = path.parent
    rows = [_checked(row, where) for row, where in csv_rows(path, COLUMNS)]
    places = [place for place, _, _ in rows]
    check_folders(root, places)
    check_inside(root, *(root / place for place in places if (root / place).is_symlink()))
    names = class_names({label for _, label, _ in rows})
    number = {name: index for index, name in enumerate(names)}
    listings = {}
    for split in ("train", "test"):
        mine = [(place, number[label]) for place, label, of in rows if of == split]
        listings[split] = Listing(tuple(place for place, _ in mine), tuple(label for _, label in mine))
    return listed_source(root, listings, names, size, "csv")


def class_names(labels: set[str]) -> tuple[str, ...]:
    """Sorted as numbers where all are numbers, else as text."""
    if all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def csv_columns(path: Path) -> tuple[str, ...]:
    """The names in a CSV's first line; empty where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return tuple(csv.DictReader(stream).fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[dict[str, str | None], str]]:
    """Each line's values by column, and where it stands. Raises BadInput for a file that is no such CSV."""
    try:
        if path.stat().st_size > LARGEST_CSV:
            raise BadInput(f"{path} is larger than 256 MiB; that is no list of images.")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(
                    f"{path}: the column {missing[0]!r} is missing; the first line names {', '.join(columns)}."
                )
            for row in reader:
                yield row, f"{path}, line {reader.line_num}"
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as a CSV in UTF-8: {error}.") from None


def _checked(row: dict[str, str | None], where: str) -> tuple[str, str, str]:
    place, label, split = (row[column] for column in COLUMNS)
    if not place or not label or not label.strip():
        raise BadInput(f"{where}: path and label may not be empty.")
    inside = checked_path(place)
    if inside is None:
        raise BadInput(outside(where, place))
    return inside, label.strip(), split_word(split, where)


def split_word(split: str | None, where: str) -> str:
    """`train` or `test`. Raises BadInput for anything else."""
    if split not in SPLIT_WORDS:
        raise BadInput(f"{where}: split = {split!r}; write train or test.")
    return SPLIT_WORDS[split]


def outside(where: str, place: str) -> str:
    """The sentence for a path that leaves the CSV's folder."""
    return f"{where}: the path {place!r} leaves the folder of the CSV; use paths below it."
