"""Making a cache folder, filling rows of it, and repairing it: under a file lock, resumable at any moment."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.base.files import sync_folder
from imbcil.protocols.cache import (
    HASH_BYTES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    META,
    CachedDataset,
    CacheMeta,
    SplitCache,
    SplitMeta,
    Triple,
    array_hash,
    cache_key,
    forget_rows,
    open_cache,
    seal,
    seal_if_writable,
    write_hashes,
    write_meta,
)
from imbcil.protocols.datasets.source import SPLITS, Images, Rows, Say, Source
from imbcil.protocols.decoding import Progress, decoded_pieces


@contextmanager
def dataset_lock(folder: Path, say: Say) -> Iterator[None]:
    """Hold the dataset's lock; another process that prepares it is waited for, and said."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            say(f"Another process is preparing {folder.name}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise BadInput(
            f"Cannot write to {folder}: {error.strerror or error}. Set IMBCIL_DATA to a folder you may write to."
        ) from None
    try:
        yield
    finally:
        lock.release()


def create_cache(folder: Path, source: Source) -> CachedDataset:
    """An empty cache folder of `source` under the dataset's `folder`: labels are there, images are not."""
    target = folder / cache_key(source.fingerprint, source.size)
    aside = folder / f".building-{target.name}"
    with _disk(folder):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write_meta(
            aside,
            CacheMeta(
                fingerprint=source.fingerprint,
                class_names=source.class_names,
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
                splits={name: _create_split(aside, name, source) for name in SPLITS},
            ),
        )
        shutil.rmtree(target, ignore_errors=True)
        aside.replace(target)
        sync_folder(folder)
    return open_cache(target)


def _create_split(folder: Path, name: str, source: Source) -> SplitMeta:
    labels = source.splits[name].labels.astype("<i8")
    shape = (len(labels), source.size, source.size, 3)
    pixels, hashes = folder / f"{name}.npy", np.zeros((len(labels), HASH_BYTES), np.uint8)
    with pixels.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        stream.truncate(stream.tell() + int(np.prod(shape)))  # sparse: takes space as rows are decoded
    np.save(folder / f"{name}_labels.npy", labels, allow_pickle=False)
    np.save(folder / f"{name}_hashes.npy", hashes, allow_pickle=False)
    targets = source.splits[name].targets
    if targets is not None:
        np.save(folder / f"{name}_targets.npy", targets, allow_pickle=False)
    return SplitMeta(
        shape=shape,
        labels_sha256=array_hash(labels),
        bytes=pixels.stat().st_size,
        mtime_ns=pixels.stat().st_mtime_ns,
        hashes_sha256=array_hash(hashes),
        targets_sha256=None if targets is None else array_hash(targets),
    )


def fill_cache(cached: CachedDataset, wanted: Mapping[str, Rows], source: Source, say: Say) -> CachedDataset:
    """Decode the `wanted` rows of each split that are missing. The caller holds the lock."""
    missing = {name: cached.splits[name].missing(rows) for name, rows in wanted.items()}
    dataset = cached.folder.parent
    _require_space(dataset, sum(len(rows) for rows in missing.values()) * source.size**2 * 3)
    with _disk(dataset):
        for name, rows in missing.items():
            if len(rows):
                progress = Progress(f"{dataset.name} {name}", len(rows), say)
                _fill_split(cached.splits[name], rows, source, progress)
        return seal(cached)


def _fill_split(split: SplitCache, rows: Rows, source: Source, progress: Progress) -> None:
    row_bytes = source.size**2 * 3
    start = split.pixels_path.stat().st_size - len(split.labels) * row_bytes
    with split.pixels_path.open(
        "r+b"
    ) as stream:  # not through the map: a full disk raises, and does not kill
        for piece, images, hashes in decoded_pieces(source, split.name, rows):
            for row, image in zip(piece.tolist(), images, strict=True):
                stream.seek(start + row * row_bytes)
                stream.write(np.ascontiguousarray(image).data)
            stream.flush()
            os.fsync(stream.fileno())
            write_hashes(split.hashes_path, piece, hashes)  # only now the rows count as decoded
            progress.advance(len(piece))


def store_moments(cached: CachedDataset) -> CachedDataset:
    """Record mean and standard deviation over the training images, all of which are decoded."""
    mean, std = moments(cached.splits["train"].images)
    with _disk(cached.folder):
        write_meta(cached.folder, cached.meta.model_copy(update={"mean": mean, "std": std}))
    return open_cache(cached.folder)


def check_cache(cached: CachedDataset, say: Say) -> CachedDataset:
    """Compare every decoded image with its hash; damaged ones are forgotten, so that they are decoded again."""
    dataset = cached.folder.parent
    bad = {name: split.damaged() for name, split in cached.splits.items()}
    count = sum(len(rows) for rows in bad.values())
    if not count:
        return seal_if_writable(cached)
    say(f"{count:,} cached images of {dataset.name} are damaged; they are decoded again.")
    with dataset_lock(dataset, say), _disk(dataset):
        for name, rows in bad.items():
            forget_rows(cached.splits[name], rows)
        return seal(cached)


def moments(images: Images, most: int = 20_000) -> tuple[Triple, Triple]:
    """Mean and standard deviation per channel, in 0..1, over at most `most` evenly spaced images."""
    step = max(1, len(images) // most)
    histogram = np.zeros((3, 256), np.int64)  # whole numbers: the same sums on every machine
    for start in range(0, len(images), 1000 * step):
        piece = images[start : start + 1000 * step : step]
        for channel in range(3):
            histogram[channel] += np.bincount(piece[..., channel].reshape(-1), minlength=256)
    levels = np.arange(256) / 255.0
    shares = histogram / histogram.sum(axis=1, keepdims=True)
    mean = [float((share * levels).sum()) for share in shares]
    spread = [
        float((share * (levels - centre) ** 2).sum()) for share, centre in zip(shares, mean, strict=True)
    ]
    return _triple(mean), _triple([max(value, 1e-6) ** 0.5 for value in spread])


def _triple(values: list[float]) -> Triple:
    first, second, third = (round(value, 4) for value in values)
    return first, second, third


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"The decoded images need {needed / 1e9:.2f} GB in {folder} and {free / 1e9:.2f} GB are free; "
            "free some, or set IMBCIL_DATA to another folder."
        )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn a disk that refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"Cannot write the cache in {folder}: {error.strerror or error}. "
            "Free space or set IMBCIL_DATA to another folder; the same command goes on from here."
        ) from error


def remove_other_caches(folder: Path, fingerprint: str) -> None:
    """Delete caches of earlier sources after a new import; readers that still map them are not disturbed."""
    for path in folder.glob(f"*/{META}"):
        try:
            stale = CacheMeta.model_validate_json(path.read_bytes()).fingerprint != fingerprint
        except (OSError, ValueError):
            stale = True
        if stale:
            shutil.rmtree(path.parent, ignore_errors=True)
