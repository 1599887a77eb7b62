"""How many images each class keeps; worked numbers of LDAM, LT-CIL and the poster."""

import numpy as np
import pytest

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.imbalance import class_quotas, profile
from imbcil.protocols.sampling import rows_by_class, sample_rows

SUBSET_BY_POSITION = [
    387, 23, 1184, 100, 39, 17, 617, 43, 105, 15, 110, 18, 34, 710, 938, 322, 467, 425, 280, 896,
    175, 72, 1130, 47, 160, 139, 983, 13, 28, 37, 79, 31, 19, 54, 121, 370, 562, 96, 69, 41,
    1240, 76, 184, 193, 1079, 647, 589, 202, 221, 1030, 18, 83, 1300, 267, 353, 127, 779, 255, 445, 115,
    816, 307, 60, 91, 32, 24, 293, 26, 677, 20, 537, 337, 133, 14, 13, 52, 512, 16, 45, 36,
    406, 232, 30, 152, 211, 63, 87, 743, 21, 50, 22, 243, 489, 27, 855, 14, 57, 66, 146, 167,
]  # fmt: skip


def test_the_exponential_profile_has_the_published_sizes() -> None:
    cifar = profile("exp", 500, 100, 100)
    assert cifar[:3].tolist() == [500, 477, 455]
    assert cifar[-4:].tolist() == [5, 5, 5, 5]
    assert cifar.sum() == 10_847
    assert profile("exp", 1300, 100, 100).sum() == 28_281
    food = profile("exp", 750, 101, 100)
    assert (food.sum(), food[-1]) == (16_454, 7)


def test_the_step_profile_has_the_published_sizes() -> None:
    assert profile("step", 500, 100, 100).sum() == 25_250
    assert profile("step", 500, 100, 10).sum() == 27_500
    assert profile("step", 500, 5, 10).tolist() == [500, 500, 50, 50, 50]
    assert profile("few-shot", 500, 5, 10).tolist() == [500, 500, 500, 50, 50]


def test_no_profile_leaves_a_class_without_an_image_and_one_class_keeps_all() -> None:
    assert profile("exp", 50, 10, 100)[-1] == 1  # int(0.5) would be none
    assert profile("step", 50, 2, 100).tolist() == [50, 1]
    assert profile("exp", 7, 1, 100).tolist() == [7]
    assert profile("exp", 7, 3, 1).tolist() == [7, 7, 7]


@pytest.mark.parametrize("rho", [0.99, 0, -5, float("nan")])
def test_a_rho_below_one_is_refused(rho: float) -> None:
    with pytest.raises(BadInput, match="rho = "):
        profile("exp", 10, 3, rho)


def test_sizes_follow_the_original_label_whatever_the_order_of_arrival() -> None:
    available = np.full(4, 100)
    expected = [100, 46, 21, 10]
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        assert class_quotas("exp", 10, available, order, "label").tolist() == expected


def test_sizes_by_arrival_give_the_first_class_the_most() -> None:
    quotas = class_quotas("exp", 10, np.full(4, 100), (3, 1, 0, 2), "arrival")
    assert quotas[[3, 1, 0, 2]].tolist() == [100, 46, 21, 10]


def test_few_shot_makes_the_base_plentiful_under_every_order() -> None:
    quotas = class_quotas("few-shot", 10, np.full(4, 100), (3, 1, 0, 2), "label")
    assert quotas.tolist() == [10, 100, 10, 100]


def test_imagenet_subset_deals_the_published_shuffled_sizes_out_by_position() -> None:
    order = tuple(int(label) for label in np.random.RandomState(1993).permutation(100))
    quotas = class_quotas("exp", 100, np.full(100, 1300), order, "shuffled-arrival")
    assert quotas[list(order)].tolist() == SUBSET_BY_POSITION


def test_a_class_with_fewer_images_than_its_quota_keeps_all_of_them() -> None:
    assert class_quotas("exp", 10, np.array([100, 30, 21, 4]), (0, 1, 2, 3), "label").tolist() == [
        100,
        30,
        21,
        4,
    ]


def test_rows_are_drawn_once_each_from_their_own_class() -> None:
    labels = np.array([2, 0, 1, 0, 2, 2, 0, 1])
    rows = rows_by_class(labels, 4)
    assert [mine.tolist() for mine in rows] == [[1, 3, 6], [2, 7], [0, 4, 5], []]
    kept = sample_rows(rows, np.array([2, 2, 1, 0]), "shuffle", seed=0)
    assert [len(mine) for mine in kept] == [2, 2, 1, 0]
    assert all(set(mine) <= set(all_) for mine, all_ in zip(kept, rows, strict=True))
    assert len(set(kept[0])) == 2
    assert [mine.tolist() for mine in rows] == [[1, 3, 6], [2, 7], [0, 4, 5], []]  # drawing changed nothing


def test_first_takes_rows_as_listed_and_another_seed_draws() -> None:
    rows = [np.arange(100)]
    assert sample_rows(rows, np.array([3]), "first", seed=0)[0].tolist() == [0, 1, 2]
    drawn = sample_rows(rows, np.array([3]), "first", seed=1)[0].tolist()
    assert drawn != [0, 1, 2]
    assert drawn == sample_rows(rows, np.array([3]), "first", seed=1)[0].tolist()
