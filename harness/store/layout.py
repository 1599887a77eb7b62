"""The store: the folder that holds runs, `<store>/runs/<run_key>/`, and its version mark."""

import os
from pathlib import Path

from filelock import Timeout

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.files import atomic_write
from imbcil.harness.store.run_folder import RunFolder, read_json

STORE_VERSION = 1


def store_root(given: str | None) -> Path:
    """`--store`, else IMBCIL_STORE, else `./imbcil-store`; absolute."""
    return Path(given or os.environ.get("IMBCIL_STORE") or "imbcil-store").expanduser().absolute()


class Store:
    """Finds and opens run folders. Refuses a store that a newer version wrote."""

    def __init__(self, root: Path) -> None:
        if bad := [mark for mark in "%?" if mark in str(root)]:
            raise BadInput(
                f"The store path {root} holds {bad[0]!r}, which MLflow's address cannot; choose another --store."
            )
        self.root = root
        mark = root / "store.json"
        if mark.exists():
            version = read_json(mark).get("version")
            if not isinstance(version, int) or version > STORE_VERSION:
                raise BadInput(
                    f"{root} was made by a newer imbcil-bench (store version {version}, this one knows {STORE_VERSION}); "
                    "update imbcil-bench or choose another --store."
                )

    def check_writable(self) -> None:
        """Refuse a store that nothing could be written to, without writing. Raises BadInput."""
        place = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not (place.is_dir() and os.access(place, os.W_OK)):
            why = "may not be written to" if place.is_dir() else "is no folder"
            raise BadInput(f"Cannot write to the store {self.root}: {place} {why}; choose another --store.")

    def prepare(self) -> None:
        """Create the store's folders. Raises BadInput where it cannot be written: nothing was trained yet."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise BadInput(
                f"Cannot write to the store {self.root}: {error.strerror}; choose another --store."
            ) from None
        mark = self.root / "store.json"
        if not mark.exists():
            atomic_write(mark, f'{{"version": {STORE_VERSION}}}\n')

    def run(self, run_key: str) -> RunFolder:
        return RunFolder(self.root / "runs" / run_key)

    def runs(self) -> list[RunFolder]:
        """Every run folder with a `run.json`, by name."""
        folder = self.root / "runs"
        if not folder.is_dir():
            return []
        return [RunFolder(path.parent) for path in sorted(folder.glob("*/run.json"))]

    def attempts(self, run_key: str) -> list[RunFolder]:
        """`<run_key>`, `<run_key>-2`, ...: those that exist, oldest first."""
        found = []
        attempt = 1
        while (folder := self.run(attempt_key(run_key, attempt))).path.joinpath("run.json").exists():
            found.append(folder)
            attempt += 1
        return found


def attempt_key(run_key: str, attempt: int) -> str:
    """The folder name of an attempt: the bare key, then `-2`, `-3`, ..."""
    return run_key if attempt == 1 else f"{run_key}-{attempt}"


def is_owned(run: RunFolder) -> bool:
    """Whether a living process trains this run now."""
    lock = run.owner_lock()
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
