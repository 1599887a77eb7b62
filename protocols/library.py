"""Datasets by name: import them, open their cache, decode what is missing, and say what is wanted."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imbcil.harness.base.errors import BadInput, ImbcilError, MissingData, RunStopped
from imbcil.harness.base.files import atomic_write
from imbcil.protocols.cache import CachedDataset, DamagedCache, cache_key, open_cache
from imbcil.protocols.cache_build import (
    check_cache,
    create_cache,
    dataset_lock,
    fill_cache,
    remove_other_caches,
    store_moments,
)
from imbcil.protocols.catalogue import LONG_TAIL, READABLE, DatasetEntry, catalogue, unknown_dataset
from imbcil.protocols.datasets.faults import Faults
from imbcil.protocols.datasets.readers import guess_kind, read_source, rendered_fingerprint, rendered_source
from imbcil.protocols.datasets.source import SPLITS, Kind, Rows, Say, Source, SourceRecord
from imbcil.protocols.places import SOURCE_FILE, data_root, dataset_folder, imported_names, is_plain_name

DECODE_AT_IMPORT = 2 << 30  # bytes; larger datasets of pictures are decoded when a scenario needs them


def import_dataset(
    name: str,
    path: Path,
    kind: str,
    root: Path | None,
    say: Say,
    size: int | None = None,
    skip_broken: bool = False,
) -> CachedDataset:
    """Make the images at `path` available as `--dataset NAME`.

    kind: auto, npz, folder, csv, voc, coco, or the reader of a catalogued dataset. size: side in pixels to store
    at (None: the catalogue's, else the images' own). skip_broken: leave out images of several labels that are
    missing, damaged or badly annotated, and list them. Raises BadInput naming what does not fit; what was
    imported under the name before stays until the new import is complete.
    """
    entry = _entry_for_import(name)
    folder = dataset_folder(name, root)
    path = path.expanduser().resolve()
    if not (path.is_file() or path.is_dir()):
        raise BadInput(f"--from {path} {'is no ordinary file' if path.exists() else 'does not exist'}.")
    resolved = guess_kind(path, kind, entry)
    faults = Faults(skip_broken)
    source = read_source(
        resolved, path, size or (None if entry is None else entry.resize or entry.size), entry, faults
    )
    if entry is not None and len(source.class_names) != entry.classes:
        raise BadInput(
            f"{path} has {len(source.class_names)} classes and {name} has {entry.classes}; import it under another name."
        )
    for note in (*source.notes, *_size_notes(name, entry, source), *_left_out(faults)):
        say(note)
    with dataset_lock(folder, say):
        cached = _fill_new_import(folder, source, say)
        _write_record(folder, resolved, path, source, faults)
        remove_other_caches(folder, source.fingerprint)
    return cached


def _entry_for_import(name: str) -> DatasetEntry | None:
    entry = catalogue().get(name)
    if entry is None and name.endswith(LONG_TAIL):
        raise BadInput(f"{name!r} is made from {name.removesuffix(LONG_TAIL)!r}: import that one.")
    if entry is not None and entry.embedded:
        raise BadInput(f"{name} is rendered on first use; import your data under another name.")
    if entry is not None and entry.images_of:
        raise BadInput(f"{name} shares the images of {entry.images_of}: import that one.")
    return entry


def _fill_new_import(folder: Path, source: Source, say: Say) -> CachedDataset:
    """Decode at import what is small enough; nothing new stays behind when a picture cannot be read."""
    key = folder / cache_key(source.fingerprint, source.size)
    known = key.exists()
    try:
        cached = _open_or_create(folder, source, say)
        if source.on_demand and source.nbytes() > DECODE_AT_IMPORT:
            say(
                f"{source.nbytes() / 1e9:.1f} GB once decoded: pictures are decoded when a protocol first needs them."
            )
            return cached
        return _fill(
            cached, source, {name: np.arange(len(source.splits[name].labels)) for name in SPLITS}, say
        )
    except BadInput:
        if not known:
            _remove(key)
        raise


def _remove(folder: Path) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


def _size_notes(name: str, entry: DatasetEntry | None, source: Source) -> list[str]:
    """A sentence where a catalogued dataset of several labels is here in part."""
    if entry is None or entry.label_kind != "multi":
        return []
    here = [len(source.splits[split].labels) for split in SPLITS]
    whole = [entry.n_train, entry.n_test]
    if here == whole:
        return []
    return [
        f"These are {here[0]:,} training and {here[1]:,} test images; {name} has {whole[0]:,} and {whole[1]:,}."
    ]


def _left_out(faults: Faults, most: int = 20) -> list[str]:
    """The count and the list of what was left out."""
    found = faults.sentences
    if not found:
        return []
    more = [f"  ... and {len(found) - most:,} more; all are in {SOURCE_FILE}."] if len(found) > most else []
    return [
        f"{len(found):,} broken {'entry was' if len(found) == 1 else 'entries were'} left out:",
        *(f"  {text}" for text in found[:most]),
        *more,
    ]


def _write_record(folder: Path, kind: Kind, path: Path, source: Source, faults: Faults) -> None:
    record = SourceRecord(
        kind=kind,
        path=str(path),
        fingerprint=source.fingerprint,
        size=source.size,
        skip_broken=faults.skip,
        broken_pictures=tuple(sorted(faults.broken_pictures)),
        left_out=tuple(faults.sentences),
    )
    try:
        atomic_write(folder / SOURCE_FILE, record.model_dump_json(indent=1) + "\n")
    except RunStopped:
        raise RunStopped(f"Cannot write {folder / SOURCE_FILE}; free space or set IMBCIL_DATA.") from None


def peek_dataset(
    name: str, root: Path | None, say: Say, size: int | None = None, *, mended: bool = False
) -> CachedDataset | None:
    """The dataset if its cache is there and sound; None otherwise. Decodes nothing.

    mended: a damaged cache is made again next, and that will be said then. Raises UnknownName for what cannot be
    a dataset's name.
    """
    name = _images_name(name)
    if not is_plain_name(name):
        raise unknown_dataset(name, imported_names(root))
    folder = dataset_folder(name, root)
    identity = _identity(name, folder)
    target = None if identity is None else folder / cache_key(identity[0], size or identity[1])
    if target is None or not target.exists():
        return None
    try:
        cached = open_cache(target)
    except DamagedCache as error:
        if not mended:
            say(f"The cache of {name} is damaged ({error}).")
        return None
    return check_cache(cached, say) if cached.suspect else cached


def open_dataset(name: str, root: Path | None, say: Say, size: int | None = None) -> CachedDataset:
    """The dataset `name` with its labels; images are decoded by `decode_rows`.

    size: side in pixels of the stored images (None: the dataset's own). Raises MissingData that says what is
    wanted, UnknownName for a name that means nothing.
    """
    cached = peek_dataset(name, root, say, size, mended=True)
    if cached is not None:
        return cached
    name = _images_name(name)
    source = _source(name, root, size)
    folder = dataset_folder(name, root)
    with dataset_lock(folder, say):
        return _open_or_create(folder, source, say)


def decode_rows(
    name: str, root: Path | None, cached: CachedDataset, rows: Mapping[str, Rows], say: Say
) -> CachedDataset:
    """Decode those of `rows` (by split) that are missing; nothing is read where none is."""
    if not any(len(cached.splits[split].missing(wanted)) for split, wanted in rows.items()):
        return cached
    name = _images_name(name)
    entry = catalogue().get(name)
    if entry is not None and entry.embedded:
        say(f"Rendering {name} (once, a few seconds).")
    source = _source(name, root, cached.meta.splits["train"].shape[1])
    folder = cached.folder.parent
    with dataset_lock(folder, say):
        cached = _fill(_open_or_create(folder, source, say), source, rows, say)
        remove_other_caches(folder, source.fingerprint)  # of an earlier version of the rendering
    return cached


def _fill(cached: CachedDataset, source: Source, rows: Mapping[str, Rows], say: Say) -> CachedDataset:
    """Decode `rows`; arrays and rendered sets whole, with their mean and standard deviation."""
    if source.on_demand:
        return fill_cache(cached, rows, source, say)
    whole = {name: np.arange(len(split.labels)) for name, split in cached.splits.items()}
    return store_moments(fill_cache(cached, whole, source, say))


def _open_or_create(folder: Path, source: Source, say: Say) -> CachedDataset:
    """The caller holds the lock."""
    target = folder / cache_key(source.fingerprint, source.size)
    if target.exists():
        try:
            return open_cache(target)
        except DamagedCache as error:
            say(f"The cache of {folder.name} is damaged ({error}); it is made again.")
    return create_cache(folder, source)


def _images_name(name: str) -> str:
    entry = catalogue().get(name)
    return entry.images_of if entry is not None and entry.images_of else name


def _identity(name: str, folder: Path) -> tuple[str, int] | None:
    """Fingerprint and default size of a dataset that is rendered or was imported here."""
    entry = catalogue().get(name)
    if entry is not None and entry.embedded:
        return rendered_fingerprint(entry), entry.size
    record = read_record(folder)
    return None if record is None else (record.fingerprint, record.size)


def _source(name: str, root: Path | None, size: int | None) -> Source:
    """Open what the dataset was imported from, or prepare to render it."""
    entry = catalogue().get(name)
    if entry is not None and entry.embedded:
        return rendered_source(entry)
    record = read_record(dataset_folder(name, root))
    if record is None:
        raise missing_images(name, root)
    path, again = Path(record.path), f"run `imbcil-bench data import {name} --from PATH`"
    if not path.exists():
        raise MissingData(
            f"{name} was imported from {path}, which is gone, and has to be decoded again; {again}."
        )
    faults = Faults(record.skip_broken, find_broken=False, broken_pictures=set(record.broken_pictures))
    source = read_source(record.kind, path, size or record.size, entry, faults)
    if source.fingerprint != record.fingerprint:
        raise MissingData(f"{name}: {path} has changed since it was imported; {again}.")
    return source


def read_record(folder: Path) -> SourceRecord | None:
    """Where a dataset was imported from; None where it was not. Raises BadInput for a damaged record."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    try:
        return SourceRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{path} is damaged; delete it and import {folder.name} again.") from None


def missing_images(name: str, root: Path | None) -> ImbcilError:
    """The error for images that are not here: what is wanted, or the nearest known names."""
    entry = catalogue().get(name)
    if entry is None and name in READABLE:
        return MissingData(READABLE[name])
    if entry is None:
        return unknown_dataset(name, imported_names(root))
    fetch = f"`imbcil-bench data download {name}` or " if entry.torchvision else ""
    return MissingData(
        f"The images of {name} are not in {data_root(root)}: run {fetch}"
        f"`imbcil-bench data import {name} --from PATH`. {entry.wanted}".rstrip()
    )
