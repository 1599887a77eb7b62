"""Which reader understands what: kinds of sources by name, and a guess from what lies at a path."""

from pathlib import Path
from typing import get_args

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.protocols.catalogue import DatasetEntry
from imbcil.protocols.datasets.faults import Faults
from imbcil.protocols.datasets.source import Kind, Source

KINDS: tuple[Kind, ...] = get_args(Kind)


def guess_kind(path: Path, kind: str, entry: DatasetEntry | None) -> Kind:
    """`kind` itself, or for `auto` what the path and the catalogue say. Raises BadInput when nothing fits."""
    if kind != "auto":
        named = next((known for known in KINDS if kind == known), None)
        if named is None:
            raise UnknownName("kind of data", kind, ["auto", *KINDS])
        return named
    by_suffix: dict[str, Kind] = {".npz": "npz", ".csv": "csv"}
    if path.suffix.lower() in by_suffix:
        return by_suffix[path.suffix.lower()]
    named = next((known for known in KINDS if entry is not None and entry.reader == known), None)
    if named is not None:
        return named
    if path.is_dir():
        return _guess_folder(path)
    raise BadInput(
        f"--from {path}: give an .npz, a .csv, a folder with train/CLASS/ and test/CLASS/ inside, a development kit "
        "of PASCAL VOC, or a folder in COCO's layout."
    )


def _guess_folder(path: Path) -> Kind:
    if (path / "VOCdevkit").is_dir() or (path / "ImageSets" / "Main").is_dir():
        return "voc"
    if any((path / "annotations").glob("*.json")) or any(path.glob("*/_annotations.coco.json")):
        return "coco"
    return "folder"


def read_source(
    kind: Kind, path: Path, size: int | None, entry: DatasetEntry | None, faults: Faults | None = None
) -> Source:
    """Open what lies at `path`. size: side to store images at; None: their own.

    faults: takes what is wrong with single images of several labels; None: the first fault is an error. Raises
    BadInput where other kinds are asked to skip broken images.
    """
    faults = faults or Faults()
    source = _read_several_labels(kind, path, size, entry, faults)
    if source is not None:
        return source
    if faults.skip:
        raise BadInput(
            "--skip-broken is for images of several labels: voc, coco, or a CSV with the column labels."
        )
    return _read_one_label(kind, path, size, entry)


def _read_several_labels(
    kind: Kind, path: Path, size: int | None, entry: DatasetEntry | None, faults: Faults
) -> Source | None:
    year = None if entry is None else entry.year
    if kind == "voc":
        from imbcil.protocols.datasets.voc import read_voc

        return read_voc(path, size, year, entry.lists if entry is not None else (), faults)
    if kind == "coco":
        from imbcil.protocols.datasets.coco import read_coco

        return read_coco(path, size, year, faults)
    if kind in ("voc-mlt", "coco-mlt"):
        from imbcil.protocols.datasets import mlt

        return (mlt.read_voc_mlt if kind == "voc-mlt" else mlt.read_coco_mlt)(path, size, faults)
    if kind == "csv":
        from imbcil.protocols.datasets.csv_list import csv_columns
        from imbcil.protocols.datasets.csv_multi import read_csv_multi

        if "labels" in csv_columns(path):
            return read_csv_multi(path, size, faults)
    return None


def _read_one_label(kind: Kind, path: Path, size: int | None, entry: DatasetEntry | None) -> Source:
    if kind == "npz":
        from imbcil.protocols.datasets.npz import read_npz

        return read_npz(path, size)
    if kind == "cifar":
        from imbcil.protocols.datasets.cifar import read_cifar

        return read_cifar(path, size)
    if kind == "csv":
        from imbcil.protocols.datasets.csv_list import read_csv_list

        return read_csv_list(path, size)
    if kind == "food101":
        from imbcil.protocols.datasets.food101 import read_food101

        return read_food101(path, size)
    if kind == "imagenet":
        from imbcil.protocols.datasets.imagenet import read_imagenet

        return read_imagenet(path, size, subset=entry is not None and entry.name == "imagenet-subset")
    if kind == "lists":
        from imbcil.protocols.datasets.path_list import read_path_lists

        return read_path_lists(path, size, entry)
    from imbcil.protocols.datasets.folder import read_folder

    return read_folder(path, size)


def rendered_fingerprint(entry: DatasetEntry) -> str:
    """What decides the pixels of an embedded dataset."""
    if entry.reader == "glyphs-ml":
        from imbcil.protocols.datasets.glyphs_multi import multi_glyphs_fingerprint

        return multi_glyphs_fingerprint(entry)
    from imbcil.protocols.datasets.glyphs import glyphs_fingerprint

    return glyphs_fingerprint(entry)


def rendered_source(entry: DatasetEntry) -> Source:
    """An embedded dataset, ready to be rendered."""
    if entry.reader == "glyphs-ml":
        from imbcil.protocols.datasets.glyphs_multi import multi_glyphs_source

        return multi_glyphs_source(entry)
    from imbcil.protocols.datasets.glyphs import glyphs_source

    return glyphs_source(entry)
