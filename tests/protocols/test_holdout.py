"""The hold-out and its quirk, by hand."""

import numpy as np

from imbcil.protocols.holdout import split_holdout


def blocks(*sizes: int) -> list[np.ndarray]:
    """Rows of label 0, 1, ...: 100 * label + number."""
    return [np.arange(size) + 100 * label for label, size in enumerate(sizes)]


def counts(rows: np.ndarray, n_classes: int) -> list[int]:
    return np.bincount(rows // 100, minlength=n_classes).tolist()


def test_each_class_gives_its_share_rounded_half_to_even() -> None:
    stays, held = split_holdout(blocks(20, 15, 25, 35, 4), (0, 1, 2, 3, 4), 0.1, quirk=False, seed=0)
    assert counts(held, 5) == [2, 2, 2, 4, 0]  # 1.5 -> 2, 2.5 -> 2, 3.5 -> 4, 0.4 -> 0
    assert sorted([*stays, *held]) == sorted(np.concatenate(blocks(20, 15, 25, 35, 4)))


def test_rows_keep_the_order_of_the_phases_list() -> None:
    stays, held = split_holdout(blocks(30, 30), (1, 0), 0.5, quirk=False, seed=0)
    assert stays.tolist() == sorted(stays)
    assert held.tolist() == sorted(held)


def test_the_quirk_takes_image_0_of_the_phase_for_each_class_too_small_to_give_one() -> None:
    _, held = split_holdout(blocks(20, 5, 5), (1, 2, 0), 0.1, quirk=True, seed=0)
    # classes 1 and 2 give none: images 0 and 1 of class 0 go instead; then round(0.1 * 18) = 2 of class 0
    assert {0, 1} <= set(held)
    assert counts(held, 3) == [4, 0, 0]


def test_the_quirk_counts_what_is_left_when_a_class_has_its_turn() -> None:
    # class 0 first: round(0.6) = 1 goes; then 1 and 2 take an image of class 0 each: 3 are left of 6
    stays, _ = split_holdout(blocks(6, 5, 5), (0, 1, 2), 0.1, quirk=True, seed=0)
    assert counts(stays, 3) == [3, 5, 5]


def test_the_quirk_leaves_the_last_image_of_a_phase() -> None:
    stays, held = split_holdout(blocks(1), (0,), 0.1, quirk=True, seed=0)
    assert (stays.tolist(), held.tolist()) == ([0], [])


def test_without_a_share_nothing_is_held_out_and_the_quirk_sleeps() -> None:
    stays, held = split_holdout(blocks(5, 5), (0, 1), 0.0, quirk=True, seed=0)
    assert (len(stays), len(held)) == (10, 0)


def test_the_draw_belongs_to_seed_and_class_alone() -> None:
    alone = split_holdout(blocks(0, 50), (1,), 0.2, quirk=False, seed=3)[1]
    beside = split_holdout(blocks(40, 50), (0, 1), 0.2, quirk=False, seed=3)[1]
    assert alone.tolist() == beside[beside >= 100].tolist()
    assert split_holdout(blocks(0, 50), (1,), 0.2, quirk=False, seed=4)[1].tolist() != alone.tolist()
