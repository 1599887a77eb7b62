"""The static protocol: all classes in one phase, with the sizes and groups that long-tailed recognition publishes."""

from pathlib import Path

import numpy as np
import pytest

from imbcil.harness.base.errors import BadInput, MissingData
from imbcil.protocols.catalogue import default_recipe
from imbcil.protocols.groups import GROUPS, count_groups
from imbcil.protocols.scenario import Scenario, build_scenario, labels_of
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import column_name, phase_sizes

# rho, training images, largest class, smallest class, classes that are many, medium, few
CIFAR100 = [
    (200, 9502, 500, 2, 30, 31, 39), (100, 10847, 500, 5, 35, 35, 30), (50, 12608, 500, 10, 41, 41, 18),
    (10, 19573, 500, 50, 69, 31, 0),
]  # fmt: skip
CIFAR10 = [
    (200, 11203, 5000, 25, 7, 3, 0), (100, 12406, 5000, 50, 8, 2, 0), (50, 13996, 5000, 100, 9, 1, 0),
    (10, 20431, 5000, 500, 10, 0, 0),
]  # fmt: skip  # its last two at rho 100 have 83 and 50, its last at rho 50 has 100


def static(dataset: str, root: Path, **settings: object) -> Scenario:
    given = ProtocolSettings(**{"protocol": "static", "dataset": dataset, **settings})
    return build_scenario(given, data_root=root, need_images=False)


def groups(counts: np.ndarray) -> tuple[int, ...]:
    found = count_groups(counts)
    return tuple(found.count(name) for name in GROUPS)


@pytest.mark.parametrize(
    ("dataset", "row"),
    [*(("cifar100-lt", row) for row in CIFAR100), *(("cifar10-lt", row) for row in CIFAR10)],
)
def test_long_tails_have_the_sizes_and_groups_of_the_field(dataset, row, tmp_path):
    rho, images, largest, smallest, *sizes = row
    made = static(dataset, tmp_path, rho=rho)
    assert len(made.phases) == 1
    assert len(made.phases[0].train) == images == made.raw_counts.sum()
    assert (made.raw_counts.max(), made.raw_counts.min()) == (largest, smallest)
    assert groups(made.raw_counts) == tuple(sizes)
    assert len(made.phases[0].test) == 10_000


def test_a_class_of_twenty_is_medium():
    """With `few` up to and including 20, rho 100 would have 31 few classes and rho 50 would have 19."""
    counts = np.array([int(500 * 100 ** (-c / 99)) for c in range(100)])
    assert (counts <= 20).sum() == 31
    assert groups(counts) == (35, 35, 30)


def test_sizes_at_rho_100_group_the_classes_of_every_rho(tmp_path):
    made = static("cifar100-lt", tmp_path, rho=10)
    by_label = made.rho100_counts[made.arrival_id]
    assert [by_label[place] for place in (0, 34, 35, 69, 70, 99)] == [500, 102, 98, 20, 19, 5]
    assert groups(made.rho100_counts) == (35, 35, 30)
    found = np.array(count_groups(by_label))
    assert set(found[:35]) == {"many"} and set(found[35:70]) == {"medium"} and set(found[70:]) == {"few"}
    assert static("cifar100", tmp_path).rho100_counts is None


def test_one_phase_holds_all_classes_whatever_their_number():
    settings = ProtocolSettings(protocol="static", dataset="any")
    assert phase_sizes(settings, 365) == (365,)
    assert column_name(settings, (365,)) == "static-1"
    assert phase_sizes(settings.model_copy(update={"n_tasks": 1}), 7) == (7,)


@pytest.mark.parametrize("key", [{"n_tasks": 2}, {"base": 50}, {"base": 0}, {"step": 10}, {"sizes": (100,)}])
def test_what_would_split_the_classes_is_refused(key):
    with pytest.raises(BadInput, match=f"{next(iter(key))} splits the classes, and static trains on all"):
        phase_sizes(ProtocolSettings(protocol="static", dataset="any", **key), 100)


def test_miml_is_named_as_readable_through_the_csv_reader(tmp_path):
    with pytest.raises(
        MissingData, match=r"images are not here; write a CSV .* data import miml --from miml.csv"
    ):
        static("miml", tmp_path)


def test_the_default_recipe_of_cifar_is_bot():
    assert default_recipe("cifar100-lt", "static") == ("bot", "")
    assert default_recipe("cifar10-lt", "static") == ("bot", "")
    assert default_recipe("glyphs100-lt", "static") == ("quick", "")


def test_the_dataset_says_how_many_labels_an_image_has(tmp_path):
    assert labels_of("static", "cifar100-lt", tmp_path) == "single"
    assert labels_of("static", "voc-mlt", tmp_path) == "multi"
    assert labels_of("mlcil", "glyphs20-ml", tmp_path) == "multi"
    assert labels_of("static", "nobody-imported-this", tmp_path) == "single"
