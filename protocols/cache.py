"""The decoded form of a dataset on disk: memory-mapped uint8 images, labels, and a record that proves them.

Layout under the data root: `NAME/source.json` says where the dataset came from, `NAME/<key>/` holds
`meta.json`, `train.npy`, `test.npy` and their `_labels.npy`; the key is a hash of the source's content and of
the stored size. A folder appears under its key complete or not at all.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import ImbcilError
from imbcil.harness.base.files import atomic_write
from imbcil.protocols.datasets.source import SPLITS, Images, Source

FORMAT = 1  # raise it when decoding changes
META = "meta.json"
_HASH_CHUNK = 16 << 20  # bytes


class SplitMeta(Frozen):
    """What is known of one split's two files."""

    shape: tuple[int, int, int, int]
    sha256: str
    """Of the decoded pixels, without the file's header."""
    labels_sha256: str
    bytes: int
    mtime_ns: int
    """When the pixels were last known to be whole; another time asks for a full check."""


class CacheMeta(Frozen):
    """`meta.json` of one cache folder."""

    format: int = FORMAT
    fingerprint: str
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: SplitMeta
    test: SplitMeta


class DamagedCache(ImbcilError):
    """A cache folder that cannot be trusted; its message says what is wrong."""


@dataclass(frozen=True)
class CachedDataset:
    """A decoded dataset: images are memory-mapped and read-only, labels original."""

    folder: Path
    meta: CacheMeta
    images: dict[str, Images]
    labels: dict[str, NDArray[np.int64]]


def cache_key(fingerprint: str, size: int) -> str:
    """The name of the cache folder of a source stored at `size` pixels."""
    return hashlib.sha256(f"{FORMAT}\x1f{fingerprint}\x1f{size}".encode()).hexdigest()[:16]


def source_key(source: Source) -> str:
    """The name of the cache folder of `source`."""
    return cache_key(source.fingerprint, source.size)


def open_cache(folder: Path) -> CachedDataset:
    """The dataset in a cache folder, checked cheaply: sizes, times, labels; pixels only when a time differs.

    Raises DamagedCache for anything missing, cut short or altered.
    """
    meta = _read_meta(folder)
    images, labels = {}, {}
    for split in SPLITS:
        known: SplitMeta = getattr(meta, split)
        images[split] = _open_images(folder / f"{split}.npy", known)
        labels[split] = _open_labels(folder / f"{split}_labels.npy", known)
    cached = CachedDataset(folder, meta, images, labels)
    if any((folder / f"{split}.npy").stat().st_mtime_ns != getattr(meta, split).mtime_ns for split in SPLITS):
        verify_pixels(cached)
        _renew_times(cached)
    return cached


def verify_pixels(cached: CachedDataset) -> None:
    """Hash every pixel. Raises DamagedCache where they are not what was decoded."""
    for split in SPLITS:
        if pixel_hash(cached.images[split]) != getattr(cached.meta, split).sha256:
            raise DamagedCache(f"{cached.folder / split}.npy is not what was decoded")


def pixel_hash(images: Images) -> str:
    """sha256 of the pixels in row order, read in pieces."""
    digest = hashlib.sha256()
    rows = max(1, _HASH_CHUNK // max(1, images[:1].nbytes))
    for start in range(0, len(images), rows):
        digest.update(np.ascontiguousarray(images[start : start + rows]).data)
    return digest.hexdigest()


def array_hash(array: NDArray[np.int64]) -> str:
    """sha256 of little-endian int64 numbers."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()


def _read_meta(folder: Path) -> CacheMeta:
    try:
        meta = CacheMeta.model_validate_json((folder / META).read_bytes())
    except OSError as error:
        raise DamagedCache(f"{folder / META} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise DamagedCache(f"{folder / META} is not what was written") from None
    if meta.format != FORMAT:
        raise DamagedCache(f"{folder / META} has format {meta.format}, this version reads {FORMAT}")
    return meta


def _open_images(path: Path, known: SplitMeta) -> Images:
    try:
        if path.stat().st_size != known.bytes:
            raise DamagedCache(f"{path} is cut short or longer than it was")
        images: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DamagedCache(f"{path} cannot be opened: {error}") from None
    if images.shape != known.shape or images.dtype != np.uint8:
        raise DamagedCache(f"{path} has another shape than was decoded")
    return images


def _open_labels(path: Path, known: SplitMeta) -> NDArray[np.int64]:
    try:
        labels: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedCache(f"{path} cannot be opened: {error}") from None
    if array_hash(labels) != known.labels_sha256:
        raise DamagedCache(f"{path} is not what was decoded")
    return labels


def _renew_times(cached: CachedDataset) -> None:
    """Record that the pixels are whole as of now, so that the next opening is cheap again."""
    times = {split: (cached.folder / f"{split}.npy").stat().st_mtime_ns for split in SPLITS}
    renewed = {
        split: getattr(cached.meta, split).model_copy(update={"mtime_ns": times[split]}) for split in SPLITS
    }
    with suppress(ImbcilError):  # a read-only cache is checked again next time, nothing more
        write_meta(cached.folder, cached.meta.model_copy(update=renewed))


def write_meta(folder: Path, meta: CacheMeta) -> None:
    """Write `meta.json` atomically."""
    atomic_write(folder / META, meta.model_dump_json(indent=1) + "\n")
