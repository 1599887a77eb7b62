"""What is wrong with single images of an import: refused at once, or left out and listed with `--skip-broken`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG

from imbcil.harness.base.errors import BadInput

LARGEST_FILE = 2 << 30  # bytes; a list or annotation beyond it is refused before it is read


@dataclass
class Faults:
    """Collects one sentence a fault where `skip` is set, else raises the first as BadInput."""

    skip: bool = False
    find_broken: bool = True  # whether to try every picture; with `skip` alone
    broken_pictures: set[str] = field(default_factory=set)  # paths below the root that cannot be decoded
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Something that makes one image unusable."""
        if not self.skip:
            raise BadInput(f"{sentence.rstrip('.')}; mend it, or leave such images out with --skip-broken.")
        self.sentences.append(sentence)


def checked_path(text: str) -> str | None:
    """A path of a list with forward slashes, or None where it could lead out of its root."""
    path = PurePosixPath(text.replace("\\", "/"))
    if not text or "\0" in text or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return None
    return path.as_posix()


def file_fault(root: Path, path: str) -> str | None:
    """Why the file at `root`/`path` cannot be used: missing, no ordinary file, or a link out of the root."""
    place = root / path
    try:
        mode = place.lstat().st_mode
        if S_ISLNK(mode):
            if not place.resolve().is_relative_to(root.resolve()):
                return f"{place} is a link that leads out of {root}"
            mode = place.stat().st_mode
    except FileNotFoundError:
        return f"{place} is missing"
    except OSError as error:
        return f"{place} cannot be read: {error.strerror or error}"
    return None if S_ISREG(mode) else f"{place} is no ordinary file"


def check_inside(root: Path, *places: Path) -> None:
    """Refuse files and folders below the root that are links out of it."""
    inside = root.resolve()
    for place in places:
        if not place.resolve().is_relative_to(inside):
            raise BadInput(
                f"{place} is a link that leads out of {root}; put what it leads to there, or give another root."
            )


def check_folders(root: Path, paths: Iterable[str]) -> None:
    """Refuse folders of `paths` (below the root) that are links out of it."""
    check_inside(root, *(root / folder for folder in sorted({PurePosixPath(path).parent for path in paths})))


def read_limited(path: Path, most: int = LARGEST_FILE) -> bytes:
    """A file's content. Raises BadInput where it is missing, no ordinary file, or larger than `most` bytes."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise BadInput(f"{path} is no ordinary file.")
        if status.st_size > most:
            size, limit = status.st_size / 2**30, most / 2**30
            raise BadInput(
                f"{path} has {size:.2f} GiB; lists and annotations beyond {limit:.2g} GiB are not read."
            )
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
