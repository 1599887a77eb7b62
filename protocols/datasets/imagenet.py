"""ImageNet (ILSVRC 2012) from an ordinary folder, and the 100 classes of it that LT-CIL calls ImageNet-Subset."""

from pathlib import Path

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.folder import class_folders, list_classes, split_folders
from imbcil.protocols.datasets.pictures import Listing, listed_source
from imbcil.protocols.datasets.source import SPLITS, Source

ALL_CLASSES, SUBSET_CLASSES, SUBSET_SEED = 1000, 100, 1993


def subset_indices() -> tuple[int, ...]:
    """Place of each subset label in the 1000 sorted class folders: label 0 is 54, label 1 is 7, ...

    LT-CIL draws them with numpy seed 1993; the label is the place in the draw.
    """
    drawn = np.random.RandomState(SUBSET_SEED).permutation(ALL_CLASSES)[:SUBSET_CLASSES]
    return tuple(int(index) for index in drawn)


def read_imagenet(root: Path, size: int | None, subset: bool) -> Source:
    """ImageNet in `root`/train/WNID and `root`/val/WNID, classes numbered by sorted WNID, or the subset of it.

    The subset is found in all 1000 folders, or in a folder that has exactly its 100. Test images are the
    validation images. Raises BadInput for another number of classes.
    """
    folders = split_folders(root)
    names = class_folders(folders["train"])
    labels = _subset_labels(names, root) if subset else _all_labels(names, root)
    listings = {split: _listing(root, folders[split], names, labels) for split in SPLITS}
    by_label = sorted(labels, key=lambda name: labels[name])
    return listed_source(root, listings, tuple(by_label), size, "imagenet-subset" if subset else "imagenet")


def _all_labels(names: tuple[str, ...], root: Path) -> dict[str, int]:
    if len(names) != ALL_CLASSES:
        raise BadInput(f"{root / 'train'} has {len(names)} class folders; ImageNet has {ALL_CLASSES}.")
    return {name: label for label, name in enumerate(names)}


def _subset_labels(names: tuple[str, ...], root: Path) -> dict[str, int]:
    drawn = subset_indices()
    if len(names) == ALL_CLASSES:
        return {names[index]: label for label, index in enumerate(drawn)}
    if len(names) == SUBSET_CLASSES:  # already cut down: the n-th folder has the n-th smallest index
        return {names[place]: int(label) for place, label in enumerate(np.argsort(drawn))}
    raise BadInput(
        f"{root / 'train'} has {len(names)} class folders; wanted are the {ALL_CLASSES} of ImageNet, "
        f"or exactly the {SUBSET_CLASSES} of the subset."
    )


def _listing(root: Path, folder: Path, names: tuple[str, ...], labels: dict[str, int]) -> Listing:
    present = class_folders(folder)
    if present != names:
        raise BadInput(f"{folder} has other class folders than train; sort its images into WNID folders.")
    return list_classes(root, folder, labels)
