"""Decoding a source into a cache folder: in pieces, over worker processes, resumable, under a file lock."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.base.files import sync_folder
from imbcil.protocols.cache import (
    CachedDataset,
    CacheMeta,
    DamagedCache,
    SplitMeta,
    array_hash,
    open_cache,
    pixel_hash,
    source_key,
    write_meta,
)
from imbcil.protocols.datasets.source import SPLITS, Images, Say, Source, SplitSource

PIECE_BYTES = 32 << 20  # decoded and written at a time; what an interrupted decode loses at most per worker
SPAWN_PAYS = 2000  # images; below it, starting worker processes takes longer than decoding
REPORT_SECONDS = 5.0


@contextmanager
def dataset_lock(folder: Path, say: Say) -> Iterator[None]:
    """Hold the dataset's lock; another process that decodes it is waited for, and said."""
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


def ensure_cached(folder: Path, source: Source, say: Say) -> CachedDataset:
    """Open the cache of `source` under the dataset's `folder`, decoding it first where it is missing or damaged.

    The caller holds `dataset_lock(folder)`.
    """
    target = folder / source_key(source)
    if target.exists():
        try:
            return open_cache(target)
        except DamagedCache as error:
            say(f"The cache is damaged ({error}); decoding again.")
            shutil.rmtree(target)
    return build_cache(folder, source, say)


def build_cache(folder: Path, source: Source, say: Say) -> CachedDataset:
    """Decode `source` into its cache folder. An earlier decode that was interrupted goes on where it ended."""
    target, aside = folder / source_key(source), folder / f".building-{source_key(source)}"
    needed = sum(len(part.labels) for part in source.splits.values()) * source.size**2 * 3
    try:
        aside.mkdir(parents=True, exist_ok=True)
        _require_space(aside, needed)
        metas = {split: _write_split(aside, split, source, say) for split in SPLITS}
        mean, std = _moments(np.load(aside / "train.npy", mmap_mode="r", allow_pickle=False))
        meta = CacheMeta(
            fingerprint=source.fingerprint,
            class_names=source.class_names,
            mean=mean,
            std=std,
            train=metas["train"],
            test=metas["test"],
        )
        write_meta(aside, meta)
        for journal in aside.glob("*.done"):
            journal.unlink()
        aside.replace(target)
        sync_folder(folder)
    except OSError as error:
        raise RunStopped(
            f"Cannot write the cache in {folder}: {error.strerror or error}. "
            "Free space or set IMBCIL_DATA to another folder; the same command goes on from here."
        ) from error
    except BadInput:  # a picture that cannot be read: nothing half-decoded stays
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return open_cache(target)


def _require_space(folder: Path, needed: int) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if needed > free + there:
        raise BadInput(
            f"The decoded images need {needed / 1e9:.2f} GB in {folder.parent} and {free / 1e9:.2f} GB are free; "
            "free some, or set IMBCIL_DATA to another folder."
        )


def _write_split(folder: Path, split: str, source: Source, say: Say) -> SplitMeta:
    part = source.splits[split]
    shape = (len(part.labels), source.size, source.size, 3)
    path, labels_path = folder / f"{split}.npy", folder / f"{split}_labels.npy"
    with labels_path.open("wb") as stream:
        np.lib.format.write_array(stream, part.labels.astype("<i8"), allow_pickle=False)
    with _PieceWriter(path, shape) as writer:
        _decode_pieces(part, writer, f"{folder.parent.name} {split}", say)
    stat = path.stat()
    images: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    return SplitMeta(
        shape=shape,
        sha256=pixel_hash(images),
        labels_sha256=array_hash(part.labels),
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
    )


class _PieceWriter:
    """An .npy file written in pieces through the file, not a map: a full disk raises instead of killing.

    A journal beside it names the pieces that are safely on disk; an interrupted file goes on from there.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.path, self.shape = path, shape
        self.row_bytes = shape[1] * shape[2] * shape[3]
        self.rows = max(1, PIECE_BYTES // self.row_bytes)
        self.journal = path.with_suffix(".done")
        self.stream: BinaryIO
        self.offset = 0

    def __enter__(self) -> "_PieceWriter":
        if not (self.path.exists() and self.journal.exists()):
            self.journal.unlink(missing_ok=True)
            with self.path.open("wb") as fresh:
                header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
                np.lib.format.write_array_header_1_0(fresh, header)
        with self.path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            self.offset = stream.tell()
        self.stream = self.path.open("r+b")
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def missing(self) -> list[int]:
        """First rows of the pieces that are not on disk yet."""
        done = set(self.journal.read_text().split()) if self.journal.exists() else set()
        return [start for start in range(0, self.shape[0], self.rows) if str(start) not in done]

    def write(self, start: int, images: Images) -> None:
        """Put a piece on disk, then into the journal."""
        self.stream.seek(self.offset + start * self.row_bytes)
        self.stream.write(np.ascontiguousarray(images).data)
        self.stream.flush()
        os.fsync(self.stream.fileno())
        with self.journal.open("a") as journal:
            journal.write(f"{start}\n")


def _decode_pieces(part: SplitSource, writer: _PieceWriter, what: str, say: Say) -> None:
    todo, total = writer.missing(), writer.shape[0]
    progress = _Progress(what, total, total - len(todo) * writer.rows, say)
    with _workers(part, len(todo) * writer.rows) as (executor, ahead):
        waiting = [
            (start, executor.submit(part.decode, start, _end(start, writer))) for start in todo[:ahead]
        ]
        rest = iter(todo[ahead:])
        try:
            while waiting:
                start, future = waiting.pop(0)
                writer.write(start, future.result())
                progress.advance(_end(start, writer) - start)
                following = next(rest, None)  # a bounded queue: decoded pieces wait in memory
                if following is not None:
                    waiting.append(
                        (following, executor.submit(part.decode, following, _end(following, writer)))
                    )
        except BrokenProcessPool:
            raise RunStopped(
                f"A process that decoded {what} was killed; the same command goes on from here."
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()


def _end(start: int, writer: _PieceWriter) -> int:
    return min(start + writer.rows, writer.shape[0])


@contextmanager
def _workers(part: SplitSource, images: int) -> Iterator[tuple[Executor, int]]:
    """An executor and how many pieces to keep in flight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not part.parallel or images < SPAWN_PAYS or cores < 2:
        with ThreadPoolExecutor(1) as threads:
            yield threads, 1
        return
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as processes:
        yield processes, 2 * cores


class _Progress:
    """A line every few seconds: how many images, how fast, how long still."""

    def __init__(self, what: str, total: int, before: int, say: Say) -> None:
        self.what, self.total, self.say = what, total, say
        self.done = self.before = max(before, 0)
        self.began = self.said = time.monotonic()
        if self.before:
            say(f"Decoding {what} goes on at image {self.before:,} of {total:,}.")

    def advance(self, images: int) -> None:
        """Count images that are on disk."""
        self.done += images
        now = time.monotonic()
        if now - self.said >= REPORT_SECONDS and self.done < self.total:
            rate = (self.done - self.before) / (now - self.began)
            left = (self.total - self.done) / rate
            self.say(
                f"Decoding {self.what}: {self.done:,} of {self.total:,} images, {rate:,.0f}/s, {left:,.0f} s left."
            )
            self.said = now


def _moments(
    images: Images, most: int = 20_000
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel, in 0..1, over at most `most` evenly spaced images."""
    step = max(1, len(images) // most)
    histogram = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), 1000 * step):
        piece = images[start : start + 1000 * step : step]
        for channel in range(3):
            histogram[channel] += np.bincount(piece[..., channel].reshape(-1), minlength=256)
    levels: NDArray[np.float64] = np.arange(256) / 255.0
    shares = histogram / histogram.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 1e-12))
    return _triple(mean), _triple(std)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (round(float(value), 6) for value in values)
    return first, second, third


def remove_other_caches(folder: Path, keep: str) -> None:
    """Delete caches of earlier sources after a new import; readers that still map them are not disturbed."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != keep:
            with suppress(OSError):
                shutil.rmtree(path)
