"""Pictures in files: one picture to one square of pixels, and a listing of many to a source."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.source import SPLITS, Images, Rows, Source, SplitSource, dense_labels

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MOST_PIXELS = 100_000_000  # a photograph has fewer; beyond it, it is a decompression bomb
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_LOOK_AT = 200  # pictures whose size is read to choose the stored size of a user's own data
LARGEST_GUESS = 64


def fit_picture(picture: "Picture", size: int) -> Images:
    """`picture` as [size, size, 3]: short side resized to `size` (antialiased bilinear), centre cut out.

    The rounding is torchvision's (Resize, then CenterCrop), so test images equal the released pipeline's.
    """
    from PIL import Image

    rgb = picture.convert("RGB")
    width, height = rgb.size
    if min(width, height) != size:
        wide, high = (
            (int(size * width / height), size) if width > height else (size, int(size * height / width))
        )
        rgb = rgb.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((rgb.width - size) / 2.0), round((rgb.height - size) / 2.0)
    return np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.uint8)


def stretch_picture(picture: "Picture", size: int) -> Images:
    """`picture` as [size, size, 3], resized as a whole (antialiased bilinear): torchvision's Resize((size, size))."""
    from PIL import Image

    rgb = picture.convert("RGB")
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def read_picture(path: Path, size: int, stretch: bool = False) -> Images:
    """The picture in a file as [size, size, 3]: its central square, or with `stretch` the whole of it.

    Raises BadInput that names a file which cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadInput(
                    f"{path} has {picture.width} x {picture.height} pixels; that is no training image."
                )
            return (stretch_picture if stretch else fit_picture)(picture, size)
    except BadInput:
        raise
    except Exception as error:  # Pillow's plug-ins raise a dozen different types on damaged files
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BadInput(f"{path} cannot be read as a picture: {reason.rstrip('.')}.")


@dataclass(frozen=True)
class Listing:
    """Files of one split, below a root, and their labels."""

    paths: tuple[str, ...]  # relative to the root, with forward slashes
    labels: tuple[int, ...]


def listed_source(
    root: Path, listings: Mapping[str, Listing], names: tuple[str, ...], size: int | None, kind: str
) -> Source:
    """A source over files. size None: the smallest short side of the first pictures, at most 64.

    The fingerprint covers every path, label, file size and time. Raises BadInput for an empty split.
    """
    for split in SPLITS:
        if not listings[split].paths:
            raise BadInput(f"{root}: there are no {split} images; both train and test images are needed.")
    fingerprint = _fingerprint(
        root, listings, kind
    )  # first: it refuses what cannot be opened without waiting
    labels = {split: np.array(listings[split].labels, dtype=np.int64) for split in SPLITS}
    dense, class_names, notes = dense_labels(labels, names, str(root))
    stored = size or _guess_size(root, listings["train"].paths)
    splits = {
        split: SplitSource(dense[split], PicturePieces(root, listings[split].paths, stored))
        for split in SPLITS
    }
    return Source(fingerprint, class_names, stored, splits, on_demand=True, notes=notes)


@dataclass(frozen=True)
class PicturePieces:
    """Cuts tasks for worker processes: each holds its own paths only."""

    root: Path
    paths: Sequence[str]
    size: int
    stretch: bool = False

    def __call__(self, rows: Rows) -> partial[Images]:
        paths = [self.paths[row] for row in rows.tolist()]
        return partial(_read_pictures, self.root, paths, self.size, self.stretch)


def _read_pictures(root: Path, paths: Sequence[str], size: int, stretch: bool) -> Images:
    if stretch:  # several labels: such an image can be left out
        try:
            return np.stack([read_picture(root / path, size, stretch) for path in paths])
        except BadInput as error:
            raise BadInput(
                f"{error} Mend it, or import with --skip-broken, which leaves such images out."
            ) from None
    return np.stack([read_picture(root / path, size, stretch) for path in paths])


def _guess_size(root: Path, paths: Sequence[str]) -> int:
    from PIL import Image

    smallest = LARGEST_GUESS
    for path in paths[:: max(1, len(paths) // _LOOK_AT)]:
        try:
            with Image.open(root / path) as picture:
                smallest = min(smallest, *picture.size)
        except Exception as error:
            raise _unreadable(root / path, error) from None
    return max(smallest, 4)


def _fingerprint(root: Path, listings: Mapping[str, Listing], kind: str) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for path, label in zip(listings[split].paths, listings[split].labels, strict=True):
            try:
                stat = (root / path).stat()
            except OSError as error:
                raise BadInput(f"{root / path} cannot be read: {error.strerror or error}.") from None
            if not S_ISREG(stat.st_mode):
                raise BadInput(f"{root / path} is no ordinary file.")
            digest.update(f"{split}\x1f{path}\x1f{label}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\n".encode())
    return f"{kind}:{digest.hexdigest()}"
