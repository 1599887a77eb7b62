"""What the project knows about each dataset: one YAML file each in `catalog/`. Imports no numpy, no torch."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.yaml_files import parse_shipped_yaml

LONG_TAIL = "-lt"
FALLBACK_RECIPE = "quick"
MULTI_LABEL_FALLBACK = "quick-ml"


class TailRule(Frozen):
    """How a dataset becomes long-tailed."""

    rank: Literal["label", "arrival", "shuffled-arrival"] = "label"
    """Which class is the largest under the orders that are not `ordered`; see imbalance.class_quotas."""
    ordered_rank: Literal["label", "arrival"] = "label"
    ordered_as: str = "ordered"
    """The class order behind `--order ordered` of a long tail (LT-CIL's ImageNet-Subset keeps the 1993 order)."""
    sampling: Literal["shuffle", "first"] = "shuffle"


class PublishedCounts(Frozen):
    """What is published of a natural long tail: class sizes of its training list, and how many classes are many, medium
    and few. `recalled`: nobody could look the figures up again, so lists that differ are taken, and that is said."""

    largest: int
    smallest: int
    many: int
    medium: int
    few: int
    recalled: bool = False


class DatasetEntry(Frozen):
    """One dataset of the catalogue, before any profile is applied."""

    name: str
    title: str
    reader: Literal[
        "arrays",
        "cifar",
        "glyphs",
        "glyphs-ml",
        "folder",
        "imagenet",
        "food101",
        "voc",
        "coco",
        "voc-mlt",
        "coco-mlt",
        "lists",
    ]
    classes: int
    label_kind: Literal["single", "multi"] = "single"
    train_per_class: int = 0
    test_per_class: int = 0
    train_images: int = 0
    """Images with several labels, and published lists: how many there are to train on."""
    test_images: int = 0
    year: str | None = None
    """Of PASCAL VOC or COCO."""
    lists: tuple[str, ...] = ()
    """PASCAL VOC: the names of the training and the test list."""
    path_lists: tuple[str, ...] = ()
    """Published lists of paths and labels: file names of the training and the test list."""
    published: PublishedCounts | None = None
    difficult: Literal["negative", "ignore", "positive"] = "negative"
    """Several labels: what is meant where the switch `data.difficult` is not set."""
    size: int
    """Side in pixels of what the network sees."""
    resize: int | None = None
    """Short side in pixels at which larger images are stored; None: `size`."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    embedded: bool = False
    list_path: bool = False
    """Read as a list of files in the released code, where the hold-out has no quirk."""
    tail: TailRule = TailRule()
    recipes: Mapping[str, str] = {}
    """Default recipe by `long-tail`, `balanced`, or a protocol's name, which wins."""
    tailed_test: bool = False
    """Whether the profile is applied to the test images too (a variant of Food101-LT)."""
    images_of: str | None = None
    """The catalogued dataset whose images a variant shares."""
    torchvision: bool = False
    """Whether `data download` can fetch it."""
    wanted: str = ""
    """Which file or folder is wanted when images are missing."""
    note: str = ""

    @property
    def n_train(self) -> int:
        """Training images in all."""
        return self.train_images or self.classes * self.train_per_class

    @property
    def n_test(self) -> int:
        """Test images in all."""
        return self.test_images or self.classes * self.test_per_class


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, DatasetEntry]:
    """Every catalogued dataset by name."""
    folder = files("imbcil.protocols.catalog")
    texts = {
        item.name: item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith(".yaml")
    }
    entries = [
        validated(DatasetEntry, parse_shipped_yaml(text, name), name) for name, text in sorted(texts.items())
    ]
    return {entry.name: entry for entry in entries}


def split_name(dataset: str) -> tuple[str, bool]:
    """The dataset's own name and whether its long-tailed form is meant: `cifar100-lt` -> (`cifar100`, True)."""
    if dataset in catalogue() or not dataset.endswith(LONG_TAIL):
        return dataset, False
    return dataset.removesuffix(LONG_TAIL), True


def find_entry(dataset: str) -> DatasetEntry | None:
    """The catalogue's entry behind NAME or NAME-lt; None for a user's own dataset."""
    return catalogue().get(split_name(dataset)[0])


READABLE = {
    "miml": (
        "MIML is not in the catalogue and its images are not here; write a CSV with the columns path, labels, split "
        "for them and run `imbcil-bench data import miml --from miml.csv`."
    ),
}
"""Datasets that papers name and that a general reader takes, by name: what to do."""


def unknown_dataset(name: str, imported: list[str]) -> BadInput:
    """The error for a dataset that is neither catalogued nor imported."""
    base, tailed = split_name(name)
    if tailed and base in {*catalogue(), *imported}:  # a long tail has no images of its own
        return BadInput(f"{name} is made from {base}, whose images it uses: name that one.")
    known = {*catalogue(), *imported}
    tails = [] if tailed else [each + LONG_TAIL for each in known if _may_be_tailed(each)]
    return UnknownName("dataset", base, sorted(known), sorted(tails))


def _may_be_tailed(name: str) -> bool:
    entry = catalogue().get(name)
    return not name.endswith(LONG_TAIL) and (entry is None or entry.label_kind == "single")


def default_recipe(
    dataset: str, protocol: str, imbalance: str | None = None, labels: str = "single"
) -> tuple[str, str]:
    """The recipe to use when none is named, and a sentence that says so where it is only a fallback.

    imbalance: the profile asked for, where one is; any but `none` makes the dataset long-tailed as `-lt` does.
    labels: "single" or "multi", of a dataset that the catalogue does not know.
    """
    entry, (base, tailed) = find_entry(dataset), split_name(dataset)
    tailed = tailed or imbalance not in (None, "none")
    profile = "long-tail" if tailed else "balanced"
    recipe = None if entry is None else entry.recipes.get(protocol, entry.recipes.get(profile))
    if recipe is not None:
        return recipe, ""
    multi = protocol == "mlcil" or (labels if entry is None else entry.label_kind) == "multi"
    fallback = MULTI_LABEL_FALLBACK if multi else FALLBACK_RECIPE
    return fallback, f"{base} has no recipe of its own in the catalogue: {fallback} is used."


def dataset_names(data_root: Path | None = None) -> list[str]:
    """Every dataset that `--dataset` takes without its `-lt`: catalogued ones first, then imported ones."""
    from imbcil.protocols.places import imported_names

    return [*catalogue(), *(name for name in imported_names(data_root) if name not in catalogue())]
