"""Pools: rows by class, balanced draws and splits that lose nothing and invent nothing."""

import pytest
import torch
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.base.randomness import torch_generator
from imbcil.harness.pools import Pool

QUOTA = torch.tensor([5, 0, 2, 5, 5, 0, 2, 5])
POOL = Pool.of_new(torch.arange(100, 108), QUOTA)


def rows_of(pool: Pool) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in pool.columns), strict=True))


def test_rows_by_class_keep_the_pools_order_and_leave_out_absent_classes():
    assert {label: rows.tolist() for label, rows in POOL.rows_by_class().items()} == {
        0: [1, 5], 2: [2, 6], 5: [0, 3, 4, 7]
    }  # fmt: skip
    assert list(POOL.rows_by_class()) == [0, 2, 5]


def test_counts_cover_every_class_even_those_without_a_row():
    counts = POOL.counts(7)
    assert counts.dtype == torch.float32
    assert counts.tolist() == [2, 0, 2, 0, 0, 4, 0]


def test_an_empty_pool_can_be_asked_everything():
    empty, generator = Pool.empty(), torch.Generator()
    assert (len(empty), empty.rows_by_class(), empty.counts(3).tolist()) == (0, {}, [0, 0, 0])
    assert len(empty.balanced(2, generator)) == 0
    assert [len(part) for part in empty.split(lambda label, n: n, generator)] == [0, 0]
    assert rows_of(empty + POOL) == rows_of(POOL)


def test_adding_pools_keeps_rows_apart_even_when_they_are_the_same_image():
    memory = Pool(torch.tensor([100]), torch.tensor([5]), torch.tensor([0]))
    assert rows_of(memory + POOL)[:2] == [(100, 5, 0), (100, 5, -1)]
    assert len(memory + POOL) == 9


def test_selecting_rows_takes_all_three_columns_along():
    pool = Pool(torch.tensor([10, 11, 12]), torch.tensor([0, 1, 2]), torch.tensor([4, -1, 6]))
    assert rows_of(pool[torch.tensor([2, 0])]) == [(12, 2, 6), (10, 0, 4)]
    assert rows_of(pool[torch.tensor([False, True, False])]) == [(11, 1, -1)]


@pytest.mark.parametrize("per_class", [0, 1, 3, 99])
def test_a_balanced_draw_takes_at_most_so_many_of_each_class_and_none_twice(per_class: int):
    drawn = POOL.balanced(per_class, torch_generator("test"))
    sizes = {0: 2, 2: 2, 5: 4}
    assert drawn.counts(6).tolist() == [min(per_class, sizes.get(label, 0)) for label in range(6)]
    assert len(set(drawn.index.tolist())) == len(drawn)


def test_a_balanced_draw_is_random_but_for_its_key():
    first, again, other = (POOL.balanced(2, torch_generator("draw", key)) for key in (1, 1, 2))
    assert first.index.tolist() == again.index.tolist()
    seen = {tuple(POOL.balanced(2, torch_generator("draw", key)).index.tolist()) for key in range(30)}
    assert len(seen) > 5
    assert len(other) == 6


def test_a_split_holds_out_exactly_what_is_asked_and_keeps_the_order_of_the_rest():
    rest, held = POOL.split(lambda label, n: n // 2 if label == 5 else label, torch_generator("split"))
    assert held.counts(6).tolist() == [0, 0, 2, 0, 0, 2]
    assert sorted(rows_of(rest) + rows_of(held)) == sorted(rows_of(POOL))
    assert rest.index.tolist() == sorted(rest.index.tolist())


def test_a_split_may_hold_out_more_than_there_is():
    rest, held = POOL.split(lambda label, n: n + 3, torch_generator("split"))
    assert (len(rest), len(held)) == (0, len(POOL))


@pytest.mark.parametrize(
    "ask", [lambda pool, g: pool.balanced(-1, g), lambda pool, g: pool.split(lambda c, n: -1, g)]
)
def test_a_negative_number_of_rows_is_refused(ask):
    with pytest.raises(ContractViolation, match="asked for -1 rows"):
        ask(POOL, torch.Generator())


def test_a_pool_cannot_be_changed():
    with pytest.raises(AttributeError):
        POOL.index = Tensor()  # type: ignore[misc]
