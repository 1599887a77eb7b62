"""Published lists of long-tailed recognition: one "relative/path label" a line, a list for training and one for test.

ImageNet-LT and Places-LT (Liu et al., CVPR 2019) and iNaturalist 2018 in the form of Kang et al. (ICLR 2020). Neither
images nor lists are shipped: a person puts the two lists into the folder from which their paths start.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.catalogue import DatasetEntry
from imbcil.protocols.datasets.pictures import Listing, listed_source
from imbcil.protocols.datasets.source import SPLITS, Source
from imbcil.protocols.groups import GROUPS, count_groups

LARGEST_LIST = 256 << 20  # bytes
MOST_CLASSES = 100_000
GENERIC = ("train.txt", "test.txt")


def read_path_lists(root: Path, size: int | None, entry: DatasetEntry | None) -> Source:
    """The dataset whose two lists lie in `root`; class names are the labels, rows keep the lists' order.

    Raises BadInput for a list that is missing, a line that is no path below `root` and a label, an image that comes
    twice, a link that leads out, and a catalogued dataset whose lists are not the published ones.
    """
    names = entry.path_lists if entry is not None and entry.path_lists else GENERIC
    files = {split: _find(root, name) for split, name in zip(SPLITS, names, strict=True)}
    listings = {split: _listing(path) for split, path in files.items()}
    seen: set[str] = set()
    for split, path in files.items():
        _refuse_twice(listings[split].paths, seen, path)
    _refuse_links(root, seen)
    most = max(max(listing.labels) for listing in listings.values())
    source = listed_source(root, listings, tuple(str(label) for label in range(most + 1)), size, "lists")
    return source if entry is None else _as_published(source, entry, root)


def _find(root: Path, name: str) -> Path:
    if not (root / name).is_file():
        raise BadInput(
            f"{root} has no {name}; put the list into the folder from which its paths start (a relative path and a "
            "label on each line)."
        )
    return root / name


def _listing(path: Path) -> Listing:
    rows = list(_rows(path))
    if not rows:
        raise BadInput(f"{path} is empty.")
    return Listing(tuple(place for place, _ in rows), tuple(label for _, label in rows))


def _rows(path: Path) -> Iterator[tuple[str, int]]:
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise BadInput(f"{path} is larger than 256 MiB; that is no list of images.")
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _row(line.strip(), f"{path}, line {number}")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text.") from None


def _row(line: str, where: str) -> tuple[str, int]:
    place, _, label = line.rpartition(" ")
    place = place.strip()
    if not place or not (label.isascii() and label.isdigit()) or int(label[:9]) >= MOST_CLASSES:
        raise BadInput(f"{where}: {line[:80]!r} is no relative path and a label such as `train/cat/1.jpg 3`.")
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or "\\" in place or "\0" in place or ":" in path.parts[0]:
        raise BadInput(f"{where}: the path {place[:80]!r} leaves the folder of the list; use paths below it.")
    return path.as_posix(), int(label)


def _refuse_twice(paths: Sequence[str], seen: set[str], where: Path) -> None:
    for path in paths:
        if path in seen:
            raise BadInput(f"{where}: the image {path[:80]!r} is listed twice, here or in the other list.")
        seen.add(path)


def _refuse_links(root: Path, paths: set[str]) -> None:
    """Folders once each, files only where they are links: lists may name half a million images."""
    inside = root.resolve()
    folders = {str(PurePosixPath(path).parent) for path in paths}
    links = {path for path in paths if (root / path).is_symlink()}
    for place in sorted(folders | links):
        if not (root / place).resolve().is_relative_to(inside):
            raise BadInput(f"{root / place} leads out of {root}; copy the images or move the root up.")


def _as_published(source: Source, entry: DatasetEntry, root: Path) -> Source:
    """Refuse other lists under a published name; figures that are only recalled are said instead."""
    published = entry.published
    if published is None:
        return source
    counts = np.bincount(source.splits["train"].labels)
    here = count_groups(counts)
    found = {
        "training images": int(counts.sum()),
        "images in the largest class": int(counts.max()),
        "images in the smallest class": int(counts.min()),
        **{f"{name} classes": here.count(name) for name in GROUPS},
        "test images": len(source.splits["test"].labels),
    }
    wanted = {
        "training images": entry.train_images,
        "images in the largest class": published.largest,
        "images in the smallest class": published.smallest,
        **{f"{name} classes": getattr(published, name) for name in GROUPS},
        "test images": entry.test_images,
    }
    wrong = [f"{found[key]:,} {key}, not {wanted[key]:,}" for key in wanted if found[key] != wanted[key]]
    if wrong and not published.recalled:
        raise BadInput(
            f"The lists in {root} have {'; '.join(wrong)}: not the published {entry.name}; import them under another name."
        )
    notes = (f"The lists have {'; '.join(wrong)}, as far as published figures are known.",) if wrong else ()
    return Source(
        source.fingerprint,
        source.class_names,
        source.size,
        source.splits,
        source.on_demand,
        (*source.notes, *notes),
    )
