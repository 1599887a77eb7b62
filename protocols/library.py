"""Datasets by name: import them, open their cache, and say what is missing."""

from pathlib import Path

from imbcil.harness.base.errors import BadInput, MissingData, RunStopped
from imbcil.harness.base.files import atomic_write
from imbcil.protocols.cache import CachedDataset, DamagedCache, cache_key, open_cache, source_key
from imbcil.protocols.cache_build import dataset_lock, ensure_cached, remove_other_caches
from imbcil.protocols.catalogue import LONG_TAIL, DatasetEntry, catalogue, unknown_dataset
from imbcil.protocols.datasets.readers import guess_kind, read_source, rendered_source
from imbcil.protocols.datasets.source import Kind, Say, Source, SourceRecord
from imbcil.protocols.places import SOURCE_FILE, data_root, dataset_folder, imported_names


def import_dataset(
    name: str, path: Path, kind: str, root: Path | None, say: Say, size: int | None = None
) -> CachedDataset:
    """Make the images at `path` available as `--dataset NAME`, decoded into the cache.

    kind: auto, npz, folder, csv, or a catalogued reader's name. size: side in pixels to store at (None: the
    catalogue's, else the images' own). Raises BadInput naming what does not fit; nothing is half-imported.
    """
    if name.endswith(LONG_TAIL):
        raise BadInput(
            f"dataset name {name!r}: NAME{LONG_TAIL} is made from NAME; import {name.removesuffix(LONG_TAIL)!r}."
        )
    folder = dataset_folder(name, root)
    entry = catalogue().get(name)
    if entry is not None and (entry.embedded or entry.images_of):
        raise BadInput(
            f"{name} is {'rendered' if entry.embedded else f'made from {entry.images_of}'}; import under another name."
        )
    path = path.expanduser().resolve()
    if not path.exists():
        raise BadInput(f"--from {path} does not exist.")
    resolved = guess_kind(path, kind, entry)
    stored = size or (None if entry is None else entry.resize or entry.size)
    source = read_source(resolved, path, stored, entry)
    _require_classes(source, entry, path)
    for note in source.notes:
        say(note)
    with dataset_lock(folder, say):
        cached = ensure_cached(folder, source, say)
        _write_record(folder, resolved, path, source)
        remove_other_caches(folder, source_key(source))
    return cached


def _require_classes(source: Source, entry: DatasetEntry | None, path: Path) -> None:
    if entry is not None and len(source.class_names) != entry.classes:
        raise BadInput(
            f"{path} has {len(source.class_names)} classes and {entry.name} has {entry.classes}; "
            "import it under a name of your own."
        )


def _write_record(folder: Path, kind: Kind, path: Path, source: Source) -> None:
    record = SourceRecord(kind=kind, path=str(path), fingerprint=source.fingerprint, size=source.size)
    try:
        atomic_write(folder / SOURCE_FILE, record.model_dump_json(indent=1) + "\n")
    except RunStopped:
        raise RunStopped(f"Cannot write {folder / SOURCE_FILE}. Free space or set IMBCIL_DATA.") from None


def open_dataset(name: str, root: Path | None, say: Say, resize: int | None = None) -> CachedDataset:
    """The decoded dataset `name`, rendered or decoded again where that is needed and possible.

    resize: side in pixels of the stored images (None: the dataset's own). Raises MissingData with what is
    wanted where; UnknownName for a name that means nothing.
    """
    entry = catalogue().get(name)
    if entry is not None and entry.images_of:
        return open_dataset(entry.images_of, root, say, resize)
    folder = dataset_folder(name, root)
    if entry is not None and entry.embedded:
        return _open_rendered(folder, entry, say)
    record = read_record(folder)
    if record is None:
        raise missing_images(name, root)
    target = folder / cache_key(record.fingerprint, resize or record.size)
    if target.exists():
        try:
            return open_cache(target)
        except DamagedCache as error:
            say(f"The cache of {name} is damaged ({error}); decoding again.")
    return _decode_again(folder, record, entry, resize or record.size, say)


def is_at_hand(name: str, root: Path | None) -> bool:
    """Whether the images of `name` were imported here or can be rendered."""
    entry = catalogue().get(name)
    if entry is not None and entry.images_of:
        return is_at_hand(entry.images_of, root)
    return bool(entry and entry.embedded) or read_record(dataset_folder(name, root)) is not None


def _open_rendered(folder: Path, entry: DatasetEntry, say: Say) -> CachedDataset:
    fingerprint, render = rendered_source(entry)
    target = folder / cache_key(fingerprint, entry.size)
    if target.exists():
        try:
            return open_cache(target)
        except DamagedCache:
            pass  # ensure_cached says it and renders again
    else:
        say(f"Rendering {entry.name} (once, a few seconds).")
    with dataset_lock(folder, say):
        return ensure_cached(folder, render(), say)


def _decode_again(
    folder: Path, record: SourceRecord, entry: DatasetEntry | None, size: int, say: Say
) -> CachedDataset:
    path = Path(record.path)
    again = f"imbcil-bench data import {folder.name} --from PATH"
    if not path.exists():
        raise MissingData(
            f"{folder.name}: its images were imported from {path}, which is gone; run `{again}`."
        )
    with dataset_lock(folder, say):
        source = read_source(record.kind, path, size, entry)
        if source.fingerprint != record.fingerprint:
            raise MissingData(f"{folder.name}: {path} has changed since it was imported; run `{again}`.")
        return ensure_cached(folder, source, say)


def read_record(folder: Path) -> SourceRecord | None:
    """Where a dataset was imported from; None where it was not. Raises BadInput for a damaged record."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    try:
        return SourceRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{path} is damaged; delete it and import {folder.name} again.") from None


def missing_images(name: str, root: Path | None) -> BadInput:
    """The error for images that are not here: what is wanted, or the nearest known names."""
    entry = catalogue().get(name)
    if entry is None:
        return unknown_dataset(name, imported_names(root))
    fetch = f"`imbcil-bench data download {name}`, or " if entry.torchvision else ""
    return MissingData(
        f"The images of {name} are not in {data_root(root)}: {fetch}"
        f"`imbcil-bench data import {name} --from PATH`. {entry.wanted}".rstrip()
    )
