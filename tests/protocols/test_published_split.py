"""The published CIFAR100-LT, ImageNet-Subset-LT and Food101-LT splits; numbers of the released code, emulated."""

import hashlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario, build_scenario
from imbcil.protocols.settings import DataSettings, ProtocolSettings

PAPER = DataSettings(holdout=0.1, holdout_quirk=True)
EIGHT = {
    ("shuffled", "lfs", 10): ("655 1203 1208 1325 853 891 1322 1350 1494 546", "590 1082 1086 1193 768 801 1189 1213 1343 490"),
    ("shuffled", "lfs", 20): (
        "585 70 562 641 551 657 734 591 140 713 378 513 519 803 671 679 530 964 202 344",
        "527 63 505 577 496 590 661 532 126 642 339 462 467 722 603 610 477 866 181 309",
    ),
    ("shuffled", "lfh", 5): ("5244 891 1322 1350 1494 546", "4719 801 1189 1213 1343 490"),
    ("shuffled", "lfh", 10): ("5244 378 513 519 803 671 679 530 964 202 344", "4719 339 462 467 722 603 610 477 866 181 309"),
    ("ordered", "lfs", 10): ("4088 2565 1609 1008 631 394 247 152 95 58", "3678 2307 1447 908 568 354 223 136 85 48"),
    ("ordered", "lfs", 20): (
        "2281 1807 1432 1133 898 711 562 446 352 279 220 174 137 110 85 67 54 41 32 26",
        "2052 1626 1289 1018 808 639 506 402 317 251 198 156 123 100 75 61 49 36 27 21",
    ),
    ("ordered", "lfh", 5): ("9901 394 247 152 95 58", "8908 354 223 136 85 48"),
    ("ordered", "lfh", 10): ("9901 220 174 137 110 85 67 54 41 32 26", "8908 198 156 123 100 75 61 49 36 27 21"),
}  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def scenario(
    order: str, protocol: str, n_tasks: int, dataset: str = "cifar100-lt", data: DataSettings = PAPER, **more
):
    settings = ProtocolSettings(protocol=protocol, dataset=dataset, n_tasks=n_tasks, order=order, data=data)
    return build_scenario(settings, **{"need_images": False, **more})


def raw(built: Scenario) -> list[int]:
    return [len(phase.train_before_holdout) for phase in built.phases]


@pytest.mark.parametrize("variant", EIGHT, ids=lambda variant: "-".join(map(str, variant)))
def test_phases_have_the_published_sizes_before_and_after_the_hold_out(variant: tuple[str, str, int]) -> None:
    built = scenario(*variant)
    before, after = (numbers(text) for text in EIGHT[variant])
    assert raw(built) == before
    assert [len(phase.train) for phase in built.phases] == after
    assert sum(after) == (9755 if variant[0] == "shuffled" else 9754)
    assert sum(len(phase.test) for phase in built.phases) == 10_000


def test_without_the_quirk_every_class_gives_its_own_share_only() -> None:
    built = scenario("ordered", "lfs", 20, data=DataSettings(holdout=0.1))
    last = built.phases[-1]  # 6, 5, 5, 5, 5 images: only the first class gives one
    assert (len(last.train), len(last.holdout)) == (25, 1)


def test_the_quirk_leaves_label_95_one_image_in_the_last_of_twenty_ordered_phases() -> None:
    last = scenario("ordered", "lfs", 20).phases[-1]
    labels = np.repeat(np.arange(100), 500)  # without images, rows are listed in label order
    assert np.bincount(labels[last.train], minlength=100)[95:].tolist() == [1, 5, 5, 5, 5]


def test_imagenet_subset_has_the_published_sizes() -> None:
    raw_sizes = {
        ("shuffled", "lfs", 10): "2530 4200 2784 1442 5461 3742 2346 1695 1995 2086",
        ("shuffled", "lfh", 5): "16417 3742 2346 1695 1995 2086",
        ("shuffled", "lfh", 10): "16417 2021 1721 1306 1040 1034 661 1031 964 1636 450",
        ("ordered", "lfs", 10): "10635 6677 4191 2631 1651 1035 648 404 252 157",
        ("ordered", "lfh", 5): "25785 1035 648 404 252 157",
    }
    for variant, expected in raw_sizes.items():
        assert raw(scenario(*variant, dataset="imagenet-subset-lt")) == numbers(expected)


def test_the_list_datasets_know_no_quirk() -> None:
    with_it = scenario("shuffled", "lfs", 10, dataset="imagenet-subset-lt")
    without = scenario("shuffled", "lfs", 10, dataset="imagenet-subset-lt", data=DataSettings(holdout=0.1))
    assert [len(phase.train) for phase in with_it.phases] == [len(phase.train) for phase in without.phases]


def test_food_has_both_readings_and_its_remainder_in_the_first_phase() -> None:
    default = scenario("shuffled", "lfs", 10, dataset="food101-lt")
    other = scenario("shuffled", "lfs", 10, dataset="food101-tailtest-lt")
    assert [len(phase.classes) for phase in default.phases] == [11] + [10] * 9
    assert sum(raw(default)) == sum(raw(other)) == 16_454
    assert sum(len(phase.test) for phase in default.phases) == 101 * 250
    assert sum(len(phase.test) for phase in other.phases) == int(
        sum(int(250 * 0.01 ** (c / 100)) for c in range(101))
    )
    assert [len(phase.classes) for phase in scenario("ordered", "lfh", 5, dataset="food101-lt").phases] == [
        51
    ] + [10] * 5


@pytest.fixture(scope="module")
def cifar100(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the real CIFAR-100 in its official row order."""
    folder = tmp_path_factory.mktemp("cifar100")
    argv, sys.argv = sys.argv, ["unpack", str(folder / "cifar100.npz")]
    try:
        runpy.run_path(str(shared_data / "unpack_cifar100.py"))
    finally:
        sys.argv = argv
    import_dataset("cifar100", folder / "cifar100.npz", "auto", folder / "root", lambda line: None)
    return folder / "root"


def test_the_sampled_images_are_the_published_ones(cifar100: Path) -> None:
    built = scenario("shuffled", "lfs", 10, data_root=cifar100, need_images=True)
    assert built.images is not None
    labels = built.images.train_labels
    rows = np.concatenate([phase.train_before_holdout for phase in built.phases])
    assert [row for row in rows.tolist() if labels[row] == 0][:5] == [9470, 27272, 30172, 43691, 45171]
    assert [row for row in rows.tolist() if labels[row] == 99] == [34578, 14396, 35560, 35541, 30065]
    assert (len(rows), rows.sum()) == (10_847, 272_991_436)
    digest = hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()
    assert digest == "644b6d28caa663f356ee55c541b55da2f8d0c4461cc0b2161f99c2fbf0273456"


def test_the_eight_variants_keep_the_same_images_and_differ_in_digest(cifar100: Path) -> None:
    built = [scenario(*variant, data_root=cifar100, need_images=True) for variant in EIGHT]
    kept = {tuple(np.sort(np.concatenate([p.train_before_holdout for p in one.phases]))) for one in built}
    assert len(kept) == 1
    assert len({one.digest for one in built}) == len(EIGHT)


def test_real_pixels_have_the_published_mean(cifar100: Path) -> None:
    images = scenario("shuffled", "lfs", 10, "cifar100", data_root=cifar100, need_images=True).images
    assert images is not None
    mean = images.train.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.50707516, 0.48654887, 0.44091784], abs=1e-7)
    assert images.mean == pytest.approx(mean, abs=1e-4)
