"""What a reader of some format hands to the cache: labels, names, and images that can be decoded in pieces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput

Say = Callable[[str], None]
Images = NDArray[np.uint8]
SPLITS = ("train", "test")
Kind = Literal["npz", "folder", "csv", "cifar", "imagenet", "food101"]


class SourceRecord(Frozen):
    """`source.json`: where a dataset came from, so that it can be decoded again."""

    schema_version: int = 1
    kind: Kind
    path: str
    """Absolute path on this machine."""
    fingerprint: str
    size: int
    """Side in pixels at which images are stored when nobody asks for another."""


class Decoder(Protocol):
    """Images of one split, decoded on demand. Must survive pickling: worker processes call it."""

    def __call__(self, start: int, stop: int) -> Images:
        """Images [stop - start, size, size, 3] of the rows from `start` up to `stop`."""
        ...


@dataclass(frozen=True)
class SplitSource:
    """Labels [N] in 0..C-1 of one split, and its images."""

    labels: NDArray[np.int64]
    decode: Decoder
    parallel: bool = True  # whether worker processes pay (not for arrays that lie in memory already)


@dataclass(frozen=True)
class Source:
    """A whole dataset, ready to be decoded."""

    fingerprint: str  # of the content; the cache's key
    class_names: tuple[str, ...]
    size: int  # side in pixels of the stored images
    splits: Mapping[str, SplitSource]
    notes: tuple[str, ...] = field(default=())  # sentences for the person who imports it


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
        raise BadInput(f"{where}: test images have label {strangers[0]}, which no training image has.")
    named = tuple(clean_name(names[label]) if names else str(label) for label in present)
    gaps = int(present[-1]) + 1 - len(present) if names is None else len(names) - len(present)
    notes = (f"{gaps} labels without a training image were left out.",) if gaps else ()
    dense = {split: np.searchsorted(present, values).astype(np.int64) for split, values in labels.items()}
    return dense, named, notes
