"""Writing files so that a kill or a power loss leaves the old content or the new one, never half."""

import os
from contextlib import suppress
from pathlib import Path

from imbcil.harness.base.errors import RunStopped


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write aside, flush to disk, rename. Raises RunStopped naming the path when the disk refuses."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RunStopped(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another --store."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power loss (a no-op where folders cannot be opened)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
