"""A user's arrays: an .npz with x_train, y_train, x_test, y_test and, if they like, class_names."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.arrays import array_split
from imbcil.protocols.datasets.source import SPLITS, Images, Source, dense_labels

NEEDED = ("x_train", "y_train", "x_test", "y_test")
LARGEST_ARRAY = 4 << 30  # bytes; beyond it, arrays in memory are the wrong form
BOMB_RATIO, BOMB_FLOOR = 200, 256 << 20  # pixels never shrink 200-fold; small arrays may


def read_npz(path: Path, size: int | None = None) -> Source:
    """The dataset in an .npz. `size`: side to store the images at; None: their own short side.

    Raises BadInput that names the array for pickled objects, wrong shapes, dtypes or label ranges, NaN,
    and for archives that would unpack to far more than they hold. Nothing is ever unpickled.
    """
    arrays = read_arrays(path, NEEDED, ("class_names",))
    images = {split: _images(arrays[f"x_{split}"], f"{path}: x_{split}") for split in SPLITS}
    shapes = {split: array.shape[1:3] for split, array in images.items()}
    if shapes["train"] != shapes["test"]:
        raise BadInput(
            f"{path}: x_train is {shapes['train']} and x_test {shapes['test']} pixels; make them alike."
        )
    names = _names(arrays["class_names"], path) if "class_names" in arrays else None
    labels = {
        split: _labels(arrays[f"y_{split}"], len(images[split]), names, path, split) for split in SPLITS
    }
    dense, class_names, notes = dense_labels(labels, names, str(path))
    stored = size or min(shapes["train"])
    splits = {split: array_split(images[split], dense[split], stored) for split in SPLITS}
    return Source(_fingerprint(path), class_names, stored, splits, notes=notes)


def _fingerprint(path: Path) -> str:
    with path.open("rb") as stream:
        return "npz:" + hashlib.file_digest(stream, "sha256").hexdigest()


def read_arrays(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz by name; `optional` ones only if they are there. Raises BadInput for one that is missing, for
    pickled objects, damaged files, and archives that would unpack to far more than they hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                Path(info.filename).stem: info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
        missing = [name for name in needed if name not in members]
        if missing:
            raise BadInput(f"{path}: the array {missing[0]} is missing; wanted are {', '.join(needed)}.")
        wanted = [*needed, *(name for name in optional if name in members)]
        for name in wanted:
            _refuse_bomb(members[name], path)
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in wanted}
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except zipfile.BadZipFile:
        raise BadInput(f"{path} is no .npz file, or it is cut short.") from None
    except (OSError, EOFError, MemoryError, zipfile.error) as error:
        raise BadInput(f"{path} cannot be read: {error or 'not enough memory'}.") from None
    except (ValueError, NotImplementedError, RuntimeError) as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise BadInput(
                f"{path} holds pickled Python objects, which are never read; save plain arrays."
            ) from None
        raise BadInput(f"{path} holds an array that cannot be read: {str(error).splitlines()[0]}.") from None


def _refuse_bomb(info: zipfile.ZipInfo, path: Path) -> None:
    if info.file_size > LARGEST_ARRAY:
        raise BadInput(f"{path}: {info.filename} is larger than 4 GiB; give images as a folder or a CSV.")
    if info.file_size > max(BOMB_FLOOR, BOMB_RATIO * info.compress_size):
        raise BadInput(
            f"{path}: {info.filename} unpacks to {info.file_size >> 20} MiB, too much for what it holds."
        )


def _images(array: NDArray[np.generic], where: str) -> Images:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise BadInput(f"{where}: image {row} holds NaN or infinity; images are uint8 from 0 to 255.")
    if array.dtype != np.uint8:
        raise BadInput(f"{where} is {array.dtype}; images are uint8 from 0 to 255.")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise BadInput(f"{where} has shape {array.shape}; wanted is [images, height, width, 3].")
    if not array.size:
        raise BadInput(f"{where} is empty.")
    return np.asarray(array if array.shape[3] == 3 else np.repeat(array, 3, axis=3), np.uint8)


def _labels(
    array: NDArray[np.generic], n_images: int, names: tuple[str, ...] | None, path: Path, split: str
) -> NDArray[np.int64]:
    where = f"{path}: y_{split}"
    if array.dtype.kind not in "iu":
        raise BadInput(f"{where} is {array.dtype}; labels are whole numbers.")
    if array.shape != (n_images,):
        raise BadInput(f"{where} has shape {array.shape}; wanted is one label for each of {n_images} images.")
    highest = len(names) - 1 if names else 1_000_000
    if array.min() < 0 or array.max() > highest:
        bad = int(array.min()) if array.min() < 0 else int(array.max())
        raise BadInput(f"{where} holds the label {bad}; allowed are 0 to {highest}.")
    return array.astype(np.int64)


def _names(array: NDArray[np.generic], path: Path) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "US" or not len(array):
        raise BadInput(f"{path}: class_names has to be a list of strings, one for each label.")
    return tuple(
        item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.tolist()
    )
