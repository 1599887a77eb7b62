"""What a reader of some format hands to the cache: labels, names, and images that can be decoded row by row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput

Say = Callable[[str], None]
Images = NDArray[np.uint8]
Rows = NDArray[np.int64]
SPLITS = ("train", "test")
POSITIVE, DIFFICULT, CROWD = 1, 2, 3
"""Codes of a stored cell of several labels; 0: the class is not in the image. DIFFICULT: all its objects there
are marked difficult (VOC). CROWD: all its annotations there are of crowds (COCO). See DataSettings."""
Kind = Literal[
    "npz", "folder", "csv", "cifar", "imagenet", "food101", "voc", "coco", "voc-mlt", "coco-mlt", "lists"
]


class SourceRecord(Frozen):
    """`source.json`: where a dataset came from, so that it can be decoded again."""

    schema_version: int = 1
    kind: Kind
    path: str
    """Absolute path on this machine."""
    fingerprint: str
    size: int
    """Side in pixels at which images are stored when nobody asks for another."""
    skip_broken: bool = False
    broken_pictures: tuple[str, ...] = ()
    """Pictures that were left out since they cannot be decoded, below the path."""
    left_out: tuple[str, ...] = ()
    """With `skip_broken`: one sentence for everything that was left out."""


@dataclass(frozen=True)
class SplitSource:
    """Labels [N] in 0..C-1 of one split, and its images. With several labels an image, labels are all -1."""

    labels: NDArray[np.int64]
    piece: Callable[[Rows], Callable[[], Images]]
    """Row numbers [n] -> a task that decodes them to [n, size, size, 3]. The task must survive pickling when
    `on_demand` is set: worker processes run it, and it should hold no more than it needs."""
    targets: NDArray[np.uint8] | None = None
    """Codes [N, C] of several labels an image (0, POSITIVE, DIFFICULT, CROWD); None: one label an image."""


@dataclass(frozen=True)
class Source:
    """A whole dataset, ready to be decoded."""

    fingerprint: str  # of the content; the cache's key
    class_names: tuple[str, ...]
    size: int  # side in pixels of the stored images
    splits: Mapping[str, SplitSource]
    on_demand: bool = False  # pictures in files: decoded when a scenario needs them, by worker processes
    notes: tuple[str, ...] = ()  # sentences for the person who imports it

    def nbytes(self) -> int:
        """Bytes of all images once decoded."""
        return sum(len(part.labels) for part in self.splits.values()) * self.size**2 * 3


def clean_name(text: str) -> str:
    """A class name that is safe on a terminal and in a CSV: no control characters, at most 200 long."""
    return "".join(char if char.isprintable() else " " for char in text).strip()[:200]


def dense_labels(
    labels: Mapping[str, NDArray[np.int64]], names: tuple[str, ...] | None, where: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...], tuple[str, ...]]:
    """Labels renumbered 0..C-1 over the classes that have training images, their names, and notes.

    A gap (a number that no training image has) closes; the old number stays as the name where no names are
    given. Raises BadInput where a test image has a class without training images.
    """
    present = np.unique(labels["train"])
    strangers = np.setdiff1d(labels["test"], present)
    if strangers.size:
        named = names[strangers[0]] if names else strangers[0]
        raise BadInput(f"{where}: test images have the class {named}, which no training image has.")
    kept = tuple(clean_name(names[label]) if names else str(label) for label in present)
    gaps = (len(names) if names else int(present[-1]) + 1) - len(present)
    notes = (f"{gaps} labels without a training image were left out; the others moved up.",) if gaps else ()
    dense = {split: np.searchsorted(present, values).astype(np.int64) for split, values in labels.items()}
    return dense, kept, notes
