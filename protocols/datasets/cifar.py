"""CIFAR-10 and CIFAR-100 from the official archive or the folder it unpacks to.

The official files are pickles. Each is read only after its md5 agrees with the published one, and then by an
unpickler that knows three names of numpy and nothing else.
"""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.arrays import array_split
from imbcil.protocols.datasets.source import SPLITS, Images, Source, clean_name

LARGEST_FILE = 256 << 20  # bytes; the archives have 170 million
_SAFE_GLOBALS: Mapping[str, Any] = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


@dataclass(frozen=True)
class CifarFiles:
    """The official archive: md5 of itself and of the files in it."""

    archive: str
    archive_md5: str
    url: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    names: tuple[str, str]  # file and md5 of the class names
    names_key: str
    labels_key: str


CIFAR10 = CifarFiles(
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    names=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    names_key="label_names",
    labels_key="labels",
)
CIFAR100 = CifarFiles(
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    names=("meta", "7973b15100ade9c7d40fb424638fde48"),
    names_key="fine_label_names",
    labels_key="fine_labels",
)
OFFICIAL = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def read_cifar(path: Path, size: int | None = None) -> Source:
    """CIFAR in the official row order. `path`: the archive, the folder in it, or the folder above that.

    Raises BadInput where a file is missing or is not the official one; nothing is unpickled then.
    """
    for official in OFFICIAL.values():
        contents = _contents(path, official)
        if contents is not None:
            return _source(contents, official, size)
    wanted = ", ".join(f"{official.archive} or {official.folder}/" for official in OFFICIAL.values())
    raise BadInput(f"{path} is not an official CIFAR archive or folder; wanted is one of {wanted}.")


def _source(contents: Mapping[str, bytes], official: CifarFiles, size: int | None) -> Source:
    splits = {}
    for split in SPLITS:
        batches = [load_restricted(contents[name]) for name in getattr(official, split)]
        images: Images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([np.asarray(batch[official.labels_key], np.int64) for batch in batches])
        splits[split] = array_split(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels, size or 32)
    names = load_restricted(contents[official.names[0]])[official.names_key]
    return Source(
        f"cifar:{official.archive_md5}", tuple(clean_name(str(name)) for name in names), size or 32, splits
    )


def _contents(path: Path, official: CifarFiles) -> dict[str, bytes] | None:
    """The official files by name, every md5 checked; None where `path` is something else."""
    wanted = {**official.train, **official.test, official.names[0]: official.names[1]}
    if path.is_file() and path.name == official.archive:
        return _from_archive(path, official, wanted)
    folder = next(
        (place for place in (path, path / official.folder) if (place / official.names[0]).is_file()), None
    )
    if folder is None and path.is_dir() and (path / official.archive).is_file():
        return _from_archive(path / official.archive, official, wanted)
    if folder is None:
        return None
    return {name: _checked(_read(folder / name), md5, folder / name) for name, md5 in wanted.items()}


def _from_archive(path: Path, official: CifarFiles, wanted: Mapping[str, str]) -> dict[str, bytes]:
    _checked(_read(path), official.archive_md5, path)
    with tarfile.open(path, "r:gz") as archive:  # members are read, never extracted
        members = {name: archive.extractfile(f"{official.folder}/{name}") for name in wanted}
        return {name: member.read() for name, member in members.items() if member is not None}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadInput(f"{path} is larger than 256 MiB; that is no official CIFAR file.")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None


def _checked(content: bytes, md5: str, path: Path) -> bytes:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise BadInput(
            f"{path} is not the official file (its md5 differs), so it is not read; download it again."
        )
    return content


def load_restricted(content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle made of plain values and numpy arrays. Raises BadInput for anything else."""
    try:
        loaded = _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except BadInput:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        raise BadInput(f"A CIFAR file cannot be read: {type(error).__name__}.") from None
    if not isinstance(loaded, dict):
        raise BadInput("A CIFAR file does not hold a dictionary.")
    return loaded


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _SAFE_GLOBALS:
            return _SAFE_GLOBALS[name]
        raise BadInput(f"A CIFAR file asks for {module}.{name}, which is never loaded.")
