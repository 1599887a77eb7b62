"""Which reader understands what: kinds of sources by name, and a guess from what lies at a path."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.protocols.catalogue import DatasetEntry
from imbcil.protocols.datasets.source import Kind, Source

LATER = ("voc", "coco")  # multi-label annotations
KINDS: tuple[Kind, ...] = get_args(Kind)


def guess_kind(path: Path, kind: str, entry: DatasetEntry | None) -> Kind:
    """`kind` itself, or for `auto` what the path and the catalogue say. Raises BadInput when nothing fits."""
    if kind in LATER:
        raise BadInput(f"--kind {kind}: multi-label data cannot be imported in this version.")
    for known in KINDS:
        if kind == known:
            return known
    if kind != "auto":
        raise UnknownName("kind of data", kind, ["auto", *KINDS])
    if path.suffix == ".npz":
        return "npz"
    if path.suffix == ".csv":
        return "csv"
    if entry is not None and entry.reader in ("cifar", "imagenet", "food101"):
        return entry.reader  # type: ignore[return-value]
    if path.is_dir():
        return "folder"
    raise BadInput(
        f"--from {path}: give an .npz, a .csv, or a folder with train/CLASS/ and test/CLASS/ inside."
    )


def read_source(kind: Kind, path: Path, size: int | None, entry: DatasetEntry | None) -> Source:
    """Open what lies at `path`. size: side to store at; None: the images' own."""
    if kind == "npz":
        from imbcil.protocols.datasets.npz import read_npz

        return read_npz(path, size)
    raise BadInput(f"--kind {kind} is not there yet.")


def rendered_source(entry: DatasetEntry) -> tuple[str, Callable[[], Source]]:
    """Fingerprint of an embedded dataset, and the function that prepares to render it."""
    from imbcil.protocols.datasets.glyphs import glyphs_fingerprint, glyphs_source

    return glyphs_fingerprint(entry), partial(glyphs_source, entry)
