"""Files with several labels each, from whatever list: checked, then made a source."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.faults import Faults, check_folders, file_fault
from imbcil.protocols.datasets.pictures import LARGEST_GUESS, PicturePieces, read_picture
from imbcil.protocols.datasets.source import SPLITS, Source, SplitSource, clean_name

_LOOK_AT = 200  # pictures whose size is read to choose the stored size of a user's own data
_PIECE = 200  # pictures that a worker process tries to decode at a time


@dataclass(frozen=True)
class MultiListing:
    """Files of one split, below a root, in their order, and the codes of their labels."""

    paths: tuple[str, ...]
    codes: NDArray[np.uint8]  # [N, C] as in SplitSource.targets

    def only(self, keep: NDArray[np.bool_]) -> "MultiListing":
        """The rows where `keep` [N] is set."""
        paths = tuple(path for path, wanted in zip(self.paths, keep.tolist(), strict=True) if wanted)
        return MultiListing(paths, self.codes[keep])


def codes_of(labels: Sequence[Mapping[int, int]], n_classes: int) -> NDArray[np.uint8]:
    """Codes [N, C] from one mapping label -> code an image."""
    codes = np.zeros((len(labels), n_classes), np.uint8)
    for row, mine in enumerate(labels):
        for label, code in mine.items():
            codes[row, label] = code
    return codes


def multi_source(
    root: Path,
    listings: Mapping[str, MultiListing],
    names: Sequence[str],
    size: int | None,
    kind: str,
    faults: Faults,
) -> Source:
    """A source over pictures with several labels each, stretched to the square.

    size None: the smallest side of the first pictures, at most 64. Training images without a label are left out;
    classes keep their column also where no image has them. Raises BadInput for a split without images; faults of
    single images go to `faults`.
    """
    seen: set[str] = set()
    listings = {split: _usable(root, listings[split], seen, faults) for split in SPLITS}
    labelled: NDArray[np.bool_] = np.asarray(listings["train"].codes.any(axis=1))
    listings["train"] = listings["train"].only(labelled)
    for split in SPLITS:
        if not listings[split].paths:
            raise BadInput(
                f"{root}: there are no usable {split} images; both train and test images are needed."
            )
    stored = size or _guess_size(root, listings["train"].paths)
    splits = {
        split: SplitSource(
            np.full(len(listings[split].paths), -1, np.int64),
            PicturePieces(root, listings[split].paths, stored, stretch=True),
            listings[split].codes,
        )
        for split in SPLITS
    }
    notes = _notes(names, listings["train"].codes, int((~labelled).sum()))
    shown = tuple(clean_name(name) for name in names)
    return Source(
        _fingerprint(root, listings, names, kind), shown, stored, splits, on_demand=True, notes=notes
    )


def _usable(root: Path, listing: MultiListing, seen: set[str], faults: Faults) -> MultiListing:
    """Rows whose file is there, new, and, where broken ones are to be left out, can be decoded."""
    check_folders(root, listing.paths)
    keep = np.ones(len(listing.paths), dtype=bool)
    for row, path in enumerate(listing.paths):
        fault = f"{root / path} is listed twice" if path in seen else file_fault(root, path)
        seen.add(path)
        if fault is not None:
            faults.add(f"{fault}.")
            keep[row] = False
    listing = listing.only(keep)
    if not faults.skip:
        return listing
    if faults.find_broken:
        found = dict(_undecodable(root, listing.paths))
        faults.sentences += found.values()
        faults.broken_pictures.update(found)
    return listing.only(np.array([path not in faults.broken_pictures for path in listing.paths], dtype=bool))


def _undecodable(root: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pictures that cannot be decoded, each with a sentence that says why."""
    from imbcil.protocols.decoding import SPAWN_PAYS, Workers

    pieces = [paths[start : start + _PIECE] for start in range(0, len(paths), _PIECE)]
    with Workers(len(paths) >= SPAWN_PAYS) as (executor, _):
        return [pair for found in executor.map(_try_pictures, [root] * len(pieces), pieces) for pair in found]


def _try_pictures(root: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Run in a worker."""
    found = []
    for path in paths:
        try:
            read_picture(root / path, 8, stretch=True)
        except BadInput as error:
            found.append((path, str(error)))
    return found


def _guess_size(root: Path, paths: Sequence[str]) -> int:
    from contextlib import suppress

    from PIL import Image

    smallest = LARGEST_GUESS
    for path in paths[:: max(1, len(paths) // _LOOK_AT)]:
        with (
            suppress(Exception),
            Image.open(root / path) as picture,
        ):  # a broken one is told when it is decoded
            smallest = min(smallest, *picture.size)
    return max(smallest, 4)


def _notes(names: Sequence[str], codes: NDArray[np.uint8], unlabelled: int) -> tuple[str, ...]:
    missing = [clean_name(name) for name, column in zip(names, codes.T, strict=True) if not column.any()]
    notes = [f"No training image shows {', '.join(missing)}."] if missing else []
    if unlabelled:
        images = "image without a label was" if unlabelled == 1 else "images without a label were"
        notes.append(f"{unlabelled:,} training {images} left out.")
    return tuple(notes)


def _fingerprint(root: Path, listings: Mapping[str, MultiListing], names: Sequence[str], kind: str) -> str:
    digest = hashlib.sha256("\x1f".join(["stretch", *names]).encode())
    for split in SPLITS:
        listing = listings[split]
        for path, codes in zip(listing.paths, listing.codes, strict=True):
            stat = (root / path).stat()
            digest.update(f"{split}\x1f{path}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\x1f".encode())
            digest.update(codes.tobytes())
    return f"{kind}:{digest.hexdigest()}"
