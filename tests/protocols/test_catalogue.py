"""What the project knows of datasets, without numpy and torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imbcil.harness.recipes import recipe_names
from imbcil.protocols.catalogue import catalogue, dataset_names, default_recipe, find_entry, split_name

OURS = {"glyphs100", "cifar10", "cifar100", "imagenet-subset", "imagenet", "food101"}


def test_every_dataset_of_the_catalogue_is_named_as_its_file_is() -> None:
    assert set(catalogue()) >= OURS
    for name, entry in catalogue().items():
        assert entry.name == name
        assert entry.images_of is None or entry.images_of in catalogue()
        assert (entry.resize or entry.size) >= entry.size


def test_a_name_with_lt_is_the_long_tail_of_the_name_without() -> None:
    assert split_name("cifar100-lt") == ("cifar100", True)
    assert split_name("cifar100") == ("cifar100", False)
    assert split_name("mine-lt") == ("mine", True)
    entry = find_entry("food101-tailtest-lt")
    assert entry is not None and entry.tailed_test


@pytest.mark.parametrize(
    ("dataset", "protocol", "recipe"),
    [
        ("cifar100-lt", "lfs", "paper"),
        ("cifar100", "lfh", "pycil"),
        ("cifar100", "static", "bot"),
        ("cifar100-lt", "static", "bot"),
        ("glyphs100-lt", "lfs", "quick"),
        ("imagenet-subset-lt", "lfh", "paper-224"),
        ("food101-lt", "lfs", "paper-224"),
    ],
)
def test_the_default_recipe_belongs_to_dataset_profile_and_protocol(
    dataset: str, protocol: str, recipe: str
) -> None:
    assert default_recipe(dataset, protocol) == (recipe, "")


def test_imported_data_without_an_entry_use_quick_and_say_so() -> None:
    recipe, sentence = default_recipe("mine-lt", "lfs")
    assert recipe == "quick"
    assert sentence == "mine has no recipe of its own in the catalogue: quick is used."


def test_default_recipes_of_class_incremental_protocols_exist() -> None:
    named = {
        entry.recipes[profile]
        for entry in catalogue().values()
        for profile in (entry.recipes if entry.label_kind == "multi" else ("long-tail", "balanced"))
    }
    assert named <= set(recipe_names())


def test_imported_names_are_listed_after_the_catalogued_ones(import_small: Callable, root: Path) -> None:
    import_small("zebra")
    assert dataset_names(root) == [*catalogue(), "zebra"]


def test_listing_needs_neither_numpy_nor_torch() -> None:
    script = (
        "import sys; from imbcil.protocols.catalogue import dataset_names, default_recipe\n"
        "from imbcil.protocols.splits import protocol_names\n"
        "dataset_names(), protocol_names(), default_recipe('cifar100-lt', 'lfs')\n"
        "print(sorted({'numpy', 'torch', 'matplotlib', 'PIL', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
