"""Decoding rows in pieces, by worker processes where pictures lie in files, with progress."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import RunStopped
from imbcil.protocols.cache import HASH_BYTES, image_hash
from imbcil.protocols.datasets.source import Images, Rows, Say, Source

PIECE_BYTES = 16 << 20  # decoded at a time; an interrupted decode loses at most one piece per worker
SPAWN_PAYS = 1500  # images; below it, starting worker processes takes longer than decoding
REPORT_SECONDS = 5.0

Piece = tuple[Rows, Images, NDArray[np.uint8]]


def decoded_pieces(source: Source, split: str, rows: Rows) -> Iterator[Piece]:
    """Rows [n], images [n, S, S, 3] and hashes [n, 16], piece by piece, in the order of `rows`.

    At most two pieces a worker wait in memory. Raises what a decoder raises (BadInput naming the file).
    """
    count = max(1, PIECE_BYTES // (source.size**2 * 3))
    parts = [rows[start : start + count] for start in range(0, len(rows), count)]
    with Workers(source.on_demand and len(rows) >= SPAWN_PAYS) as (executor, ahead):
        waiting: list[tuple[Rows, Future[tuple[Images, NDArray[np.uint8]]]]] = []
        try:
            for part in parts:
                waiting.append((part, executor.submit(_decode, source.splits[split].piece(part))))
                if len(waiting) >= ahead:
                    yield _result(waiting)
            while waiting:
                yield _result(waiting)
        except BrokenProcessPool:
            raise RunStopped(
                "A process that decodes images was killed; the same command goes on from here."
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()


def _result(waiting: list[tuple[Rows, Future[tuple[Images, NDArray[np.uint8]]]]]) -> Piece:
    part, future = waiting.pop(0)
    return (part, *future.result())


def _decode(task: Callable[[], Images]) -> tuple[Images, NDArray[np.uint8]]:
    """Run in a worker: images and their hashes."""
    images = task()
    hashes = np.frombuffer(b"".join(image_hash(image) for image in images), np.uint8)
    return images, hashes.reshape(-1, HASH_BYTES)


class Workers:
    """Worker processes, or one thread; and how many pieces to keep in flight."""

    def __init__(self, processes: bool) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.ahead = 2 * cores if processes else 1
        self.executor: Executor = (
            ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
            if processes
            else ThreadPoolExecutor(1)
        )

    def __enter__(self) -> tuple[Executor, int]:
        return self.executor, self.ahead

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(wait=True, cancel_futures=True)


class Progress:
    """A line every few seconds: how many images, how fast, how long still."""

    def __init__(self, what: str, total: int, say: Say) -> None:
        self.what, self.total, self.say, self.done = what, total, say, 0
        self.began = self.said = time.monotonic()

    def advance(self, images: int) -> None:
        """Count images that are on disk."""
        self.done += images
        now = time.monotonic()
        if now - self.said >= REPORT_SECONDS and self.done < self.total:
            rate = self.done / (now - self.began)
            left = (self.total - self.done) / rate
            self.say(
                f"Decoding {self.what}: {self.done:,} of {self.total:,} images, {rate:,.0f}/s, {left:,.0f} s left."
            )
            self.said = now
