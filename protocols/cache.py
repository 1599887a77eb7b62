"""The decoded form of a dataset on disk: memory-mapped uint8 images, labels, and hashes that prove them.

Layout under the data root: `NAME/source.json` says where the dataset came from; `NAME/<key>/` holds
`meta.json` and, for each split, `.npy` (images, a sparse file in which only decoded rows take space),
`_labels.npy`, `_hashes.npy` (16 bytes an image; zeros: not decoded yet) and, with several labels an image,
`_targets.npy` (a code for each image and class). The key is a hash of the source's
content and of the stored size. A folder appears under its key complete or not at all; an image counts as
decoded only once its pixels are on disk and its hash is written.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import ImbcilError
from imbcil.harness.base.files import atomic_write
from imbcil.protocols.datasets.source import SPLITS, Images, Rows

FORMAT = 1  # raise it when decoding changes
META = "meta.json"
HASH_BYTES = 16
Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


class SplitMeta(Frozen):
    """What is known of one split's files."""

    shape: tuple[int, int, int, int]
    labels_sha256: str
    bytes: int
    mtime_ns: int
    """When the pixels were last known to be what their hashes say."""
    hashes_sha256: str
    targets_sha256: str | None = None
    """Of the codes of several labels an image; None: one label an image."""


class CacheMeta(Frozen):
    """`meta.json` of one cache folder."""

    format: int = FORMAT
    fingerprint: str
    class_names: tuple[str, ...]
    mean: Triple
    std: Triple
    splits: Mapping[str, SplitMeta]


class DamagedCache(ImbcilError):
    """A cache folder that cannot be used at all; its message says why."""


@dataclass(frozen=True)
class SplitCache:
    """One split: images [N, S, S, 3] memory-mapped read-only, original labels [N], hashes [N, 16]."""

    folder: Path
    name: str
    images: Images
    labels: NDArray[np.int64]
    hashes: NDArray[np.uint8]
    targets: NDArray[np.uint8] | None = None  # [N, C] codes as in SplitSource; labels are then all -1

    @property
    def pixels_path(self) -> Path:
        """The file of the images."""
        return self.folder / f"{self.name}.npy"

    @property
    def hashes_path(self) -> Path:
        """The file of the hashes."""
        return self.folder / f"{self.name}_hashes.npy"

    def missing(self, rows: Rows) -> Rows:
        """Those of `rows` that are not decoded yet, ascending."""
        return np.unique(rows[~self.hashes[rows].any(axis=1)])

    def damaged(self) -> Rows:
        """Decoded rows whose pixels are not what was decoded. Reads every decoded image."""
        decoded = np.flatnonzero(self.hashes.any(axis=1))
        wrong = [row for row in decoded if image_hash(self.images[row]) != self.hashes[row].tobytes()]
        return np.array(wrong, dtype=np.int64)


@dataclass(frozen=True)
class CachedDataset:
    """A dataset of which some or all images are decoded."""

    folder: Path
    meta: CacheMeta
    splits: Mapping[str, SplitCache]
    suspect: bool  # files changed behind our back: check before use


def cache_key(fingerprint: str, size: int) -> str:
    """The name of the cache folder of a source stored at `size` pixels."""
    return hashlib.sha256(f"{FORMAT}\x1f{fingerprint}\x1f{size}".encode()).hexdigest()[:16]


def image_hash(image: Images) -> bytes:
    """16 bytes of BLAKE2b over one image's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=HASH_BYTES).digest()


def array_hash(array: NDArray[np.generic]) -> str:
    """sha256 of an array's little-endian bytes (int64 and uint8 arrays)."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()


def open_cache(folder: Path) -> CachedDataset:
    """The dataset in a cache folder, checked cheaply: sizes, times, labels, hashes; no pixel is read.

    Raises DamagedCache where the folder's own files are unusable.
    """
    meta = _read_meta(folder)
    splits = {name: _open_split(folder, name, meta.splits[name]) for name in SPLITS}
    suspect = any(
        split.pixels_path.stat().st_mtime_ns != meta.splits[name].mtime_ns
        or array_hash(split.hashes) != meta.splits[name].hashes_sha256
        for name, split in splits.items()
    )
    return CachedDataset(folder, meta, splits, suspect)


def _read_meta(folder: Path) -> CacheMeta:
    try:
        meta = CacheMeta.model_validate_json((folder / META).read_bytes())
    except OSError as error:
        raise DamagedCache(f"{folder / META} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise DamagedCache(f"{folder / META} is not what was written") from None
    if meta.format != FORMAT or set(meta.splits) != set(SPLITS):
        raise DamagedCache(f"{folder / META} belongs to another version")
    return meta


def _open_split(folder: Path, name: str, known: SplitMeta) -> SplitCache:
    pixels = folder / f"{name}.npy"
    try:
        if pixels.stat().st_size != known.bytes:
            raise DamagedCache(f"{pixels} is cut short or longer than it was")
        images: Images = np.load(pixels, mmap_mode="r", allow_pickle=False)
        labels: NDArray[np.int64] = np.load(folder / f"{name}_labels.npy", allow_pickle=False)
        hashes: NDArray[np.uint8] = np.load(folder / f"{name}_hashes.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedCache(f"{folder / name} cannot be opened: {error}") from None
    if images.shape != known.shape or images.dtype != np.uint8 or hashes.shape != (len(images), HASH_BYTES):
        raise DamagedCache(f"{pixels} has another shape than was decoded")
    if array_hash(labels) != known.labels_sha256:
        raise DamagedCache(f"{folder / name}_labels.npy is not what was written")
    return SplitCache(folder, name, images, labels, hashes, _open_targets(folder, name, known))


def _open_targets(folder: Path, name: str, known: SplitMeta) -> NDArray[np.uint8] | None:
    if known.targets_sha256 is None:
        return None
    try:
        targets: NDArray[np.uint8] = np.load(folder / f"{name}_targets.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedCache(f"{folder / name}_targets.npy cannot be opened: {error}") from None
    if targets.dtype != np.uint8 or array_hash(targets) != known.targets_sha256:
        raise DamagedCache(f"{folder / name}_targets.npy is not what was written")
    targets.flags.writeable = False
    return targets


def seal(cached: CachedDataset) -> CachedDataset:
    """Record that pixels and hashes agree as of now, so that the next opening is cheap; opened afresh."""
    known = {
        name: cached.meta.splits[name].model_copy(
            update={
                "mtime_ns": split.pixels_path.stat().st_mtime_ns,
                "hashes_sha256": array_hash(np.load(split.hashes_path, allow_pickle=False)),
            }
        )
        for name, split in cached.splits.items()
    }
    write_meta(cached.folder, cached.meta.model_copy(update={"splits": known}))
    return open_cache(cached.folder)


def forget_rows(split: SplitCache, rows: Rows) -> None:
    """Count rows as not decoded."""
    write_hashes(split.hashes_path, rows, np.zeros((len(rows), HASH_BYTES), np.uint8))


def write_hashes(path: Path, rows: Rows, hashes: NDArray[np.uint8]) -> None:
    """Put hashes [n, 16] of `rows` [n] on disk."""
    with path.open("r+b") as stream:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_1_0(stream)
        offset = stream.tell()
        for row, value in zip(rows.tolist(), hashes, strict=True):
            stream.seek(offset + row * HASH_BYTES)
            stream.write(value.tobytes())
        stream.flush()
        os.fsync(stream.fileno())


def write_meta(folder: Path, meta: CacheMeta) -> None:
    """Write `meta.json` atomically."""
    atomic_write(folder / META, meta.model_dump_json(indent=1) + "\n")


def seal_if_writable(cached: CachedDataset) -> CachedDataset:
    """`seal`, or the same dataset unsealed on a read-only disk (it is then checked again next time)."""
    with suppress(ImbcilError, OSError):
        return seal(cached)
    return cached
