"""What is wrong with single images of an import: refused at once, or left out and listed with `--skip-broken`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG

from imbcil.harness.base.errors import BadInput

LARGEST_FILE = 2 << 30  # bytes; a file beyond it is refused before it is opened


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
    """Why the file at `root`/`path` cannot be used: missing, no ordinary file, too large, or a link out of the root."""
    place = root / path
    try:
        status = place.lstat()
        if S_ISLNK(status.st_mode):
            if not place.resolve().is_relative_to(root.resolve()):
                return f"{place} is a link that leads out of {root}"
            status = place.stat()
    except FileNotFoundError:
        return f"{place} is missing"
    except OSError as error:
        return f"{place} cannot be read: {error.strerror or error}"
    if not S_ISREG(status.st_mode):
        return f"{place} is no ordinary file"
    return _too_large(place, status.st_size, LARGEST_FILE)


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
        if large := _too_large(path, status.st_size, most):
            raise BadInput(f"{large}.")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None


def _too_large(path: Path, size: int, most: int) -> str | None:
    """What to say of a file of `size` bytes where at most `most` are read."""
    if size <= most:
        return None
    limit = f"{most >> 30} GiB" if most >= 2**30 else f"{most >> 20} MiB"
    return f"{path} has {size / 2**30:.2f} GiB; a file of its kind beyond {limit} is not read"
