"""Checkpoints: safetensors plus JSON, written aside and renamed, the newest two kept. No pickle is ever read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from imbcil.harness.base.errors import RunStopped
from imbcil.harness.base.files import sync_folder

KEPT = 2
FORMAT = 1


class CheckpointStore:
    """Numbered folders `000012/{state.json, tensors.safetensors}` below one folder."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self.warn = warn

    def numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit())

    def save(self, tree: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the next checkpoint whole, then drop all but the newest two.

        Raises RunStopped naming the folder when the disk refuses; older checkpoints stay.
        """
        numbers = self.numbers()
        number = numbers[-1] + 1 if numbers else 1
        target = self.folder / f"{number:06d}"
        aside = self.folder / f".{number:06d}.{os.getpid()}.part"
        data = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
        content = {
            "format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "tree_sha256": _tree_hash(tree), "tree": tree
        }  # fmt: skip
        try:
            self._clear_parts()
            aside.mkdir(parents=True)
            _write(aside / "tensors.safetensors", data)
            _write(aside / "state.json", json.dumps(content, allow_nan=False).encode())
            sync_folder(aside)
            aside.rename(target)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise RunStopped(
                f"Cannot write a checkpoint to {self.folder}: {error.strerror or error}. "
                "Free space, then run the same command again; it continues from the last checkpoint."
            ) from error
        for old in numbers[: max(len(numbers) + 1 - KEPT, 0)]:
            shutil.rmtree(self.folder / f"{old:06d}", ignore_errors=True)

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest checkpoint that is whole, or None. A damaged one is passed over with a message."""
        for number in reversed(self.numbers()):
            folder = self.folder / f"{number:06d}"
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
                self.warn(f"The checkpoint {folder} is damaged ({error}); going back to the one before.")
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def clear(self) -> None:
        """Delete all checkpoints: the run is finished."""
        for number in self.numbers():
            shutil.rmtree(self.folder / f"{number:06d}", ignore_errors=True)
        self._clear_parts()

    def _clear_parts(self) -> None:
        with suppress(OSError):
            for left in self.folder.glob(".*.part"):
                shutil.rmtree(left, ignore_errors=True)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    data = (folder / "tensors.safetensors").read_bytes()
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
    tree, tree_hash = content["tree"], _tree_hash(content["tree"])
    if (hashlib.sha256(data).hexdigest(), tree_hash) != (
        content["sha256"], content.get("tree_sha256", tree_hash)
    ):  # fmt: skip
        raise ValueError("its checksum does not agree")
    return tree, load_tensors(data)


def _tree_hash(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
