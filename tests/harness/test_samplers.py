"""Samplers: what each epoch consists of, in numbers, and that it follows from the key alone."""

from collections import Counter

import pytest
import torch

from imbcil.harness.base.randomness import torch_generator
from imbcil.harness.pools import Pool
from imbcil.harness.samplers import (
    ClassAware,
    Online,
    Rows,
    Sampler,
    Shuffle,
    Streams,
    Weighted,
    without_single_rows,
)

SIZES = (40, 9, 1, 4)  # rows per class
NEW = Pool.of_new(torch.arange(sum(SIZES)), torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES)))
MEMORY = Pool(torch.arange(500, 510), torch.arange(10) % 4 + 4, torch.arange(10))
EVERY: list[Sampler] = [
    Shuffle(), ClassAware(), ClassAware(4), Weighted(0.5), Streams(), Streams(2, 2.0), Streams(drop_last=True), Online()
]  # fmt: skip


def planned(sampler: Sampler, pool: Pool = NEW, batch: int = 16, key: object = 0) -> list[Rows]:
    return sampler.plan(pool, batch, torch_generator("sampler", key))


def drawn(plan: list[Rows]) -> list[int]:
    return [row for part in plan for row in part.rows.tolist()]


def share(pool: Pool, plan: list[Rows]) -> torch.Tensor:
    return pool[torch.tensor(drawn(plan))].counts(4) / len(drawn(plan))


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_the_same_key_makes_the_same_plan_and_another_key_another(sampler: Sampler):
    pool = MEMORY + NEW
    first, again, other = (planned(sampler, pool, key=key) for key in (1, 1, 2))
    assert drawn(first) == drawn(again)
    assert drawn(first) != drawn(other)


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_a_plan_does_not_touch_the_global_generator(sampler: Sampler):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    planned(sampler, MEMORY + NEW)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_an_empty_pool_makes_an_empty_plan(sampler: Sampler):
    assert planned(sampler, Pool.empty()) == []


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_every_row_of_a_batch_has_a_stream(sampler: Sampler):
    for part in planned(sampler, MEMORY + NEW):
        assert part.stream.shape == part.rows.shape
        assert part.rows.dtype == part.stream.dtype == torch.int64


def test_shuffle_takes_every_row_once_and_keeps_the_smaller_last_batch():
    plan = planned(Shuffle())
    assert sorted(drawn(plan)) == list(range(54))
    assert [len(part.rows) for part in plan] == [16, 16, 16, 6]
    assert drawn(plan) != sorted(drawn(plan))
    assert not any(part.stream.any() for part in plan)


def test_class_aware_draws_each_class_equally_often_in_an_epoch_of_shuffles_length():
    plan = planned(ClassAware())
    assert [len(part.rows) for part in plan] == [16, 16, 16, 6]
    assert sorted(NEW[torch.tensor(drawn(plan))].counts(4).tolist()) == [13, 13, 14, 14]


def test_class_aware_takes_several_rows_of_each_drawn_class():
    rows = torch.tensor(drawn(planned(ClassAware(4), NEW)))
    groups = NEW.quota[rows[:52]].reshape(-1, 4)
    assert (groups == groups[:, :1]).all()
    assert Counter(groups[:12, 0].tolist()) == dict.fromkeys(range(4), 3)  # whole rounds over the classes


def test_class_aware_cycles_a_class_so_that_no_row_is_left_out_or_favoured():
    times = Counter(drawn(planned(ClassAware(4))))
    small = [times[row] for row in range(40, 49)]  # 9 rows, drawn 12 to 16 times together
    assert min(small) >= 1
    assert max(small) - min(small) <= 1


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_weighted_draws_classes_in_proportion_to_a_power_of_their_size(q: float):
    pool = Pool.of_new(
        torch.arange(5400), torch.repeat_interleave(torch.arange(4), 100 * torch.tensor(SIZES))
    )
    power = torch.tensor(SIZES, dtype=torch.float64) ** q
    expected = power / power.sum()
    found = share(pool, planned(Weighted(q), pool, batch=128))
    tolerance = 5 * (expected * (1 - expected) / 5400).sqrt()  # five standard deviations of a share
    assert ((found - expected).abs() < tolerance).all(), (found, expected)


def test_weighted_keeps_the_length_of_an_epoch_and_draws_with_replacement():
    plan = planned(Weighted(0.0))
    assert [len(part.rows) for part in plan] == [16, 16, 16, 6]
    assert max(Counter(drawn(plan)).values()) > 1


def test_streams_put_new_rows_and_a_share_of_memory_into_each_batch():
    pool = MEMORY + NEW
    plan = planned(Streams(), pool)
    for part, size in zip(plan, [16, 16, 16, 6], strict=True):
        slots = pool.slot[part.rows]
        assert part.stream.tolist() == [0] * size + [1] * 4
        assert (slots[part.stream == 0] == -1).all()
        assert (slots[part.stream == 1] >= 0).all()
    new = [row for part in plan for row in part.rows[part.stream == 0].tolist()]
    assert sorted(pool.index[torch.tensor(new)].tolist()) == list(range(54))


def test_streams_cycle_the_memory_so_that_each_exemplar_comes_equally_often():
    pool = MEMORY + NEW
    replays = [row for part in planned(Streams(), pool) for row in part.rows[part.stream == 1].tolist()]
    assert sorted(Counter(replays).values()) == [1] * 4 + [2] * 6  # 16 draws from 10


def test_two_draws_are_two_independent_streams():
    pool = MEMORY + NEW
    plan = planned(Streams(draws=2, ratio=2.0), pool)
    assert plan[0].stream.tolist() == [0] * 16 + [1] * 8 + [2] * 8
    first, second = (plan[0].rows[plan[0].stream == stream].tolist() for stream in (1, 2))
    assert first != second


def test_streams_may_drop_the_last_partial_batch_of_new_data():
    plan = planned(Streams(drop_last=True), MEMORY + NEW)
    assert [int((part.stream == 0).sum()) for part in plan] == [16, 16, 16]
    assert planned(Streams(drop_last=True), MEMORY + NEW, batch=64) == []


@pytest.mark.parametrize("drop_last", [False, True])
def test_streams_without_a_memory_are_new_data_alone(drop_last: bool):
    plan = planned(Streams(drop_last=drop_last))
    assert [len(part.rows) for part in plan] == [16, 16, 16] + [6] * (not drop_last)
    assert not any(part.stream.any() for part in plan)


def test_streams_never_draw_more_of_a_small_memory_than_it_holds():
    pool = MEMORY[torch.arange(2)] + NEW
    part = planned(Streams(ratio=1.0), pool)[0]
    assert sorted(pool.slot[part.rows[part.stream == 1]].tolist()) == [0, 1]


def test_a_high_ratio_still_draws_one_exemplar():
    assert int((planned(Streams(ratio=100.0), MEMORY + NEW)[0].stream == 1).sum()) == 1


def test_online_plans_the_new_data_once_and_leaves_the_memory_to_the_loop():
    pool = MEMORY + NEW
    plan = planned(Online(replay=8), pool)
    assert sorted(pool.index[torch.tensor(drawn(plan))].tolist()) == list(range(54))


def test_a_last_batch_of_one_row_joins_the_one_before():
    parts = [Rows(torch.arange(n), torch.zeros(n, dtype=torch.int64)) for n in (4, 4, 1)]
    assert [len(part.rows) for part in without_single_rows(parts)] == [4, 5]
    assert without_single_rows(parts)[1].rows.tolist() == [0, 1, 2, 3, 0]
    assert len(without_single_rows(parts)[1].stream) == 5


@pytest.mark.parametrize("sizes", [(4, 4), (4, 2), (1,), ()])
def test_other_last_batches_stay_as_they_are(sizes: tuple[int, ...]):
    parts = [Rows(torch.arange(n), torch.zeros(n, dtype=torch.int64)) for n in sizes]
    assert without_single_rows(parts) == parts
