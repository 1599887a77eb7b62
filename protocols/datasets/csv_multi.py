"""A user's CSV with the columns path, labels, split: several labels an image, parted by `;` or `|`.

Paths are relative to the CSV's folder. A test image may have no label; a training image may not.
"""

import re
from pathlib import Path

from imbcil.protocols.datasets.csv_list import class_names, csv_rows, outside, split_word
from imbcil.protocols.datasets.faults import Faults, checked_path
from imbcil.protocols.datasets.multi_list import MultiListing, codes_of, multi_source
from imbcil.protocols.datasets.source import POSITIVE, SPLITS, Source

COLUMNS = ("path", "labels", "split")
_Row = tuple[str, frozenset[str], str]  # path, labels, where it stands


def read_csv_multi(path: Path, size: int | None, faults: Faults) -> Source:
    """The dataset in a CSV; classes are those of the training images, rows keep the file's order.

    Raises BadInput naming the line for a missing column or an unknown split; faults of single lines, such as a
    path that leaves the folder or a class that no training image has, go to `faults`.
    """
    rows: dict[str, list[_Row]] = {split: [] for split in SPLITS}
    for row, where in csv_rows(path, COLUMNS):
        split = split_word(row["split"], where)
        place, labels = row["path"] or "", _labels(row["labels"] or "")
        inside = checked_path(place)
        if inside is None:
            faults.add(outside(where, place) if place else f"{where}: the path may not be empty.")
        elif split == "train" and not labels:
            faults.add(f"{where}: the training image {place} has no label.")
        else:
            rows[split].append((inside, labels, where))
    names = class_names({label for _, labels, _ in rows["train"] for label in labels})
    number = {name: label for label, name in enumerate(names)}
    rows["test"] = [row for row in rows["test"] if _known(row, number, faults)]
    listings = {
        split: MultiListing(
            tuple(place for place, _, _ in mine),
            codes_of([{number[label]: POSITIVE for label in labels} for _, labels, _ in mine], len(names)),
        )
        for split, mine in rows.items()
    }
    return multi_source(path.parent, listings, names, size, "csv-multi", faults)


def _labels(text: str) -> frozenset[str]:
    return frozenset(label.strip() for label in re.split("[;|]", text) if label.strip())


def _known(row: _Row, number: dict[str, int], faults: Faults) -> bool:
    stranger = next((label for label in sorted(row[1]) if label not in number), None)
    if stranger is not None:
        faults.add(f"{row[2]}: no training image has the class {stranger!r}.")
    return stranger is None
