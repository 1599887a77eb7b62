"""In which order classes arrive: `shuffled`, `ordered`, `random:SEED`, or a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imbcil.harness.base.errors import BadInput

PUBLISHED_SEED = 1993  # of the order 68, 56, 78, ... that this field has used since iCaRL
LARGEST_ORDER_FILE = 1 << 20  # bytes


def class_order(order: str, class_names: Sequence[str], shift: int = 0) -> tuple[int, ...]:
    """Original labels in order of arrival, a permutation of 0..C-1 (C names give C labels).

    `shift` is added to the seed where the order has one (`--vary order`); an order without a seed refuses it.
    Raises BadInput for an unknown word, a bad seed, or a file that is no permutation.
    """
    n_classes = len(class_names)
    seed = _seed_of(order)
    if seed is not None:
        return tuple(int(label) for label in np.random.RandomState(seed + shift).permutation(n_classes))
    if shift:
        raise BadInput(f"order = {order}: only `shuffled` and `random:SEED` can vary with the seed.")
    if order == "ordered":
        return tuple(range(n_classes))
    return _order_from_file(Path(order), class_names)


def names_file(order: str) -> bool:
    """Whether `order` is the path of a file."""
    return order not in ("shuffled", "ordered") and not order.startswith("random:")


def _seed_of(order: str) -> int | None:
    if order == "shuffled":
        return PUBLISHED_SEED
    if not order.startswith("random:"):
        return None
    text = order.removeprefix("random:")
    if not (text.isascii() and text.isdigit()) or int(text) > 2**31:
        raise BadInput(f"order = {order}: write random:SEED with a whole number from 0 to {2**31}.")
    return int(text)


def _order_from_file(path: Path, class_names: Sequence[str]) -> tuple[int, ...]:
    entries = _entries(path)
    labels = _as_numbers(entries)
    if sorted(labels) != list(
        range(len(class_names))
    ):  # names; classes may be named by digits, as glyphs are
        labels = [_label(entry, class_names, path) for entry in entries]
    if sorted(labels) != list(range(len(class_names))):
        raise BadInput(
            f"order file {path}: it must name each of the {len(class_names)} classes once "
            f"and has {len(labels)} entries, {len(set(labels))} of them different."
        )
    return tuple(labels)


def _entries(path: Path) -> list[str]:
    if not path.is_file():
        raise BadInput(
            f"order = {path}: write shuffled, ordered, random:SEED, or the path of a file that exists."
        )
    try:
        if path.stat().st_size > LARGEST_ORDER_FILE:
            raise BadInput(f"order file {path} is larger than 1 MiB; it should hold one class a line.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"order file {path} cannot be read: {error}.") from None
    entries = [line.split("#", 1)[0].strip() for line in lines]
    if len([entry for entry in entries if entry]) == 1:
        entries = entries[0].strip("[]").split(",")  # one line of numbers, as papers print them
    return [entry.strip() for entry in entries if entry.strip()]


def _as_numbers(entries: Sequence[str]) -> list[int]:
    """The entries as labels where all are whole numbers, else nothing."""
    whole = all(entry.isascii() and entry.isdigit() and len(entry) < 10 for entry in entries)
    return [int(entry) for entry in entries] if whole else []


def _label(entry: str, class_names: Sequence[str], path: Path) -> int:
    if entry in class_names:
        return list(class_names).index(entry)
    if entry.isascii() and entry.isdigit() and int(entry) < len(class_names):
        return int(entry)
    raise BadInput(
        f"order file {path}: {entry!r} is neither a class name nor a label below {len(class_names)}."
    )
