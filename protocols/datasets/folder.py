"""A user's image-folder tree: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val)."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.pictures import SUFFIXES, Listing, listed_source
from imbcil.protocols.datasets.source import SPLITS, Source

TEST_FOLDERS = ("test", "val", "validation")


def read_folder(root: Path, size: int | None = None) -> Source:
    """The dataset in a folder tree; class names are the folders of `train`, sorted.

    Raises BadInput where train or test is missing or empty, and for links that lead out of the tree.
    """
    folders = split_folders(root)
    names = class_folders(folders["train"])
    strangers = sorted(set(class_folders(folders["test"])) - set(names))
    if strangers:
        raise BadInput(f"{folders['test'] / strangers[0]}: there is no such class among the training images.")
    listings = {
        split: list_classes(root, folders[split], {name: label for label, name in enumerate(names)})
        for split in SPLITS
    }
    return listed_source(root, listings, names, size, "folder")


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of the training and the test images."""
    if not root.is_dir():
        raise BadInput(f"{root} is no folder; wanted is one with train/CLASS/ and test/CLASS/ inside.")
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise BadInput(
            f"{root} needs the folders train/CLASS/ and test/CLASS/ (or val/CLASS/) with images inside."
        )
    return {"train": root / "train", "test": test}


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted. Raises BadInput where there are none."""
    names = tuple(sorted(entry.name for entry in _entries(folder) if entry.is_dir() and entry.name[0] != "."))
    if not names:
        raise BadInput(f"{folder} has no class folders; wanted is {folder}/CLASS/image.jpg.")
    return names


def list_classes(root: Path, folder: Path, labels: Mapping[str, int]) -> Listing:
    """The images of the classes in `labels` (folder name -> label), each class sorted by file name.

    Other class folders are passed over; a class without a folder has no images.
    """
    present = set(class_folders(folder))
    paths: list[str] = []
    numbers: list[int] = []
    for name in sorted(present & set(labels)):
        mine = sorted(_pictures(root, folder / name))
        paths += mine
        numbers += [labels[name]] * len(mine)
    return Listing(tuple(paths), tuple(numbers))


def _pictures(root: Path, folder: Path) -> Iterator[str]:
    for entry in _entries(folder):
        if Path(entry.name).suffix.lower() in SUFFIXES and entry.name[0] != ".":
            path = Path(entry.path)
            if entry.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
                raise BadInput(
                    f"{path} is a link that leads out of {root}; copy the image or move the root up."
                )
            yield path.relative_to(root).as_posix()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}.") from None
