"""The exemplar memory: herding by its definition, budgets, what old classes keep, extra columns."""

import itertools

import pytest
import torch
from torch import Tensor

from imbcil.harness.base.errors import BadInput, ContractViolation
from imbcil.harness.base.randomness import torch_generator
from imbcil.harness.memory import Memory, herding, random_choice, stack_extras
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemorySettings


def is_greedy(features: Tensor, chosen: list[int]) -> bool:
    """Rebuffi et al. 2017, alg. 4, word for word: the next exemplar brings the mean of all exemplars closest
    to the class mean of normalised features; float64, all rows tried. Two rows alone are always a tie."""
    normal = [row / row.norm().clamp(min=1e-12) for row in features.double()]
    mean = sum(normal) / len(normal)
    for place, row in enumerate(chosen):
        before = chosen[:place]
        distance = {
            other: float((mean - sum(normal[i] for i in [*before, other]) / (place + 1)).norm())
            for other in range(len(normal))
            if other not in before
        }
        if row not in distance or distance[row] > min(distance.values()) + 1e-9:
            return False
    return True


def features_of(n: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.mark.parametrize(("n", "count"), list(itertools.product([1, 2, 7, 30], [1, 3, 20])))
def test_herding_equals_the_greedy_definition(n: int, count: int):
    for seed in range(5):
        features = features_of(n, seed=seed) * torch.linspace(0.01, 50, n)[:, None]  # lengths must not matter
        features[n // 2 :: 7] = 0  # rows of no direction take part, too
        chosen = herding(features, count).tolist()
        assert len(chosen) == min(n, count)
        assert is_greedy(features, chosen)


def test_a_worked_example_of_herding():
    """Directions 0, 90 and 45 degrees: the mean lies at 45 degrees, so row 2 comes first, whatever the lengths."""
    features = torch.tensor([[10.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    assert herding(features, 1).tolist() == [2]


def test_the_first_choices_of_more_are_the_choices_of_fewer():
    features = features_of(25)
    longest = herding(features, 25).tolist()
    assert all(herding(features, count).tolist() == longest[:count] for count in range(26))


def test_herding_takes_every_row_once_when_it_may_take_more_than_there_are():
    assert sorted(herding(features_of(4), 9).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("n", "count"), [(0, 5), (0, 0), (5, 0)])
def test_herding_from_nothing_or_for_nothing_chooses_nothing(n: int, count: int):
    chosen = herding(torch.zeros(n, 3), count)
    assert (len(chosen), chosen.dtype) == (0, torch.int64)


def test_equal_and_zero_features_are_chosen_once_each():
    assert sorted(herding(torch.zeros(5, 3), 4).tolist()) == [0, 1, 2, 3]
    assert sorted(herding(torch.ones(5, 3), 5).tolist()) == [0, 1, 2, 3, 4]


def test_a_feature_that_is_not_finite_does_not_make_a_row_come_twice():
    features = features_of(4)
    features[1] = float("nan")
    assert sorted(herding(features, 4).tolist()) == [0, 1, 2, 3]


def test_a_random_choice_is_keyed_and_without_repetition():
    features = features_of(10)
    first, again, other = (random_choice(features, 6, torch_generator("pick", key)) for key in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 6
    assert sorted(random_choice(features, 99, torch_generator("pick")).tolist()) == list(range(10))


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "n_classes", "quota"),
    [("20/class", 1, 20), ("20/class", 100, 20), ("2000", 10, 200), ("2000", 30, 66), ("5", 7, 0), ("0", 10, 0),
     ("0/class", 10, 0), ("2000", 0, 2000)],
)  # fmt: skip
def test_the_quota_follows_from_the_budget(budget: str, n_classes: int, quota: int):
    assert Memory(MemorySettings(budget=budget)).quota(n_classes) == quota


@pytest.mark.parametrize(
    "budget", ["", "-5", "20/klass", "2.5", "20 / class", "1e3", "20/class/class", "9999999999"]
)
def test_a_budget_that_cannot_be_read_is_refused(budget: str):
    with pytest.raises(ValueError, match="write N/class, a total N, or 0"):
        MemorySettings(budget=budget)


def test_a_total_below_one_exemplar_a_class_is_refused_and_others_are_not():
    with pytest.raises(BadInput, match=r"--memory 99 is less than one exemplar for each of the 100 classes"):
        MemorySettings(budget="99").check(100)
    for budget in ("0", "100", "1/class", "0/class"):
        MemorySettings(budget=budget).check(100)


# --- filling ------------------------------------------------------------------------------------------------------


def new_rows(sizes: dict[int, int], start: int = 0) -> Pool:
    quota = torch.tensor([label for label, n in sizes.items() for _ in range(n)], dtype=torch.int64)
    return Pool.of_new(torch.arange(start, start + len(quota)), quota)


def filled(budget: str, sizes: dict[int, int], old: str = "truncate", pick: str = "herding") -> Memory:
    memory = Memory(MemorySettings(budget=budget, old=old, pick=pick))
    update(memory, new_rows(sizes), 0, len(sizes))
    return memory


def update(memory: Memory, new: Pool, phase: int, n_classes: int, seed: int = 0, **extras: Tensor) -> Tensor:
    pool = memory.pool() + new
    features = features_of(len(pool), seed=seed)
    return memory.update(pool, features, n_classes, phase, torch_generator("memory", phase), **extras)


def by_class(memory: Memory) -> dict[int, list[int]]:
    pool = memory.pool()
    return {label: pool.index[rows].tolist() for label, rows in pool.rows_by_class().items()}


def test_each_class_keeps_its_herded_rows_in_order_of_choice_and_a_small_class_keeps_all():
    memory, pool = Memory(MemorySettings(budget="3/class")), new_rows({0: 8, 1: 2, 2: 5})
    features = features_of(len(pool))
    memory.update(pool, features, 3, 0, torch.Generator())
    kept = by_class(memory)
    assert [len(kept[label]) for label in range(3)] == [3, 2, 3]
    for label, rows in pool.rows_by_class().items():
        first = int(rows[0])
        assert is_greedy(features[rows], [row - first for row in kept[label]])
    assert memory.pool().slot.tolist() == list(range(8))


def test_a_total_budget_shrinks_old_classes_to_the_front_of_their_order():
    memory = filled("12", {0: 20, 1: 20})
    before = by_class(memory)
    update(memory, new_rows({2: 20}, start=100), 1, 3, seed=5)
    after = by_class(memory)
    assert {label: len(rows) for label, rows in after.items()} == {0: 4, 1: 4, 2: 4}
    assert after[0] == before[0][:4]
    assert after[1] == before[1][:4]


def test_reselecting_herds_anew_from_what_is_left():
    memory = filled("12", {0: 20, 1: 20}, old="reselect")
    held = memory.pool()
    pool = held + new_rows({2: 20}, start=100)
    features = features_of(len(pool), seed=5)
    memory.update(pool, features, 3, 1, torch.Generator())
    for label in (0, 1):
        rows = held.rows_by_class()[label]
        places = [held.index[rows].tolist().index(row) for row in by_class(memory)[label]]
        assert len(places) == 4
        assert is_greedy(features[rows], places)


def test_truncating_and_reselecting_differ_where_the_features_moved():
    memories = [filled("12", {0: 20, 1: 20}, old=old) for old in ("truncate", "reselect")]
    for memory in memories:
        update(memory, new_rows({2: 20}, start=100), 1, 3, seed=5)
    assert by_class(memories[0])[2] == by_class(memories[1])[2]
    assert by_class(memories[0])[0] != by_class(memories[1])[0]


@pytest.mark.parametrize("old", ["truncate", "reselect"])
def test_a_class_budget_keeps_every_old_exemplar(old: str):
    memory = filled("3/class", {0: 20, 1: 2}, old=old)
    before = {label: set(rows) for label, rows in by_class(memory).items()}
    update(memory, new_rows({2: 20}, start=100), 1, 3, seed=5)
    assert {label: set(rows) for label, rows in by_class(memory).items() if label < 2} == before


def test_random_picks_are_keyed():
    assert by_class(filled("3/class", {0: 20}, pick="random")) == by_class(
        filled("3/class", {0: 20}, pick="random")
    )


@pytest.mark.parametrize("budget", ["0", "0/class", "2"])
def test_a_quota_of_zero_leaves_an_empty_memory_that_still_works(budget: str):
    memory = filled(budget, {0: 5, 1: 5, 2: 5})
    assert len(memory) == len(memory.pool()) == 0
    assert len(update(memory, new_rows({3: 5}), 1, 4)) == 0


def test_an_update_without_candidates_empties_the_memory():
    memory = filled("3/class", {0: 5})
    assert memory.update(Pool.empty(), torch.empty(0, 6), 1, 1, torch.Generator()).tolist() == []
    assert len(memory) == 0


def test_every_exemplar_remembers_the_phase_it_came_in():
    memory = filled("2/class", {0: 5, 1: 1})
    update(memory, new_rows({2: 5}, start=100), 4, 3)
    assert memory.phase.tolist() == [0, 0, 0, 4, 4]


def test_the_rows_that_an_update_returns_are_the_memory():
    memory = filled("2/class", {0: 5, 1: 5})
    pool = memory.pool() + new_rows({2: 5}, start=100)
    chosen = memory.update(pool, features_of(len(pool)), 3, 1, torch.Generator())
    assert pool.index[chosen].tolist() == memory.index.tolist()


def test_the_memory_survives_its_own_state():
    memory = filled("2/class", {0: 5, 1: 5})
    copy = Memory(memory.settings)
    copy.load_state(memory.to_state())
    assert by_class(copy) == by_class(memory)
    assert copy.phase.tolist() == memory.phase.tolist()


# --- extra columns ------------------------------------------------------------------------------------------------


def test_extras_follow_their_rows():
    memory, pool = Memory(MemorySettings(budget="2/class")), new_rows({0: 6, 1: 6})
    marks = pool.index[:, None].float() + torch.tensor([0.0, 0.5])
    memory.update(pool, features_of(12), 2, 0, torch.Generator(), marks=marks)
    assert memory.extras["marks"].tolist() == [[index, index + 0.5] for index in memory.index.tolist()]


def test_added_rows_are_padded_with_nan_on_both_sides():
    memory, pool = Memory(MemorySettings(budget="9/class")), new_rows({0: 2})
    memory.update(pool, features_of(2), 1, 0, torch.Generator(), logits=torch.ones(2, 1))
    memory.add(new_rows({1: 1}, start=50), 1, logits=torch.full((1, 2), 7.0), age=torch.tensor([[3]]))
    nan = float("nan")
    assert torch.equal(
        memory.extras["logits"].nan_to_num(-1), torch.tensor([[1, nan], [1, nan], [7, 7]]).nan_to_num(-1)
    )
    assert memory.extras["age"].tolist() == [[0], [0], [3]]
    assert memory.index.tolist()[2] == 50
    assert memory.phase.tolist() == [0, 0, 1]


def test_adding_rows_without_a_known_column_fills_it():
    memory, pool = Memory(MemorySettings(budget="9/class")), new_rows({0: 1})
    memory.update(
        pool, features_of(1), 1, 0, torch.Generator(), logits=torch.ones(1, 2), age=torch.ones(1, 1).long()
    )
    memory.add(new_rows({1: 1}), 1)
    assert memory.extras["logits"][1].isnan().all()
    assert memory.extras["age"].tolist() == [[1], [0]]


def test_narrower_columns_may_come_second():
    stacked = stack_extras(torch.ones(1, 3), 1, torch.full((2, 1), 5.0), 2)
    assert stacked[1:, 0].tolist() == [5, 5]
    assert stacked[1:, 1:].isnan().all()


def test_keeping_slots_keeps_their_order_and_extras():
    memory, pool = Memory(MemorySettings(budget="9/class")), new_rows({0: 3})
    memory.update(pool, features_of(3), 1, 0, torch.Generator(), mark=pool.index[:, None])
    wanted = memory.index[torch.tensor([2, 0])].tolist()
    memory.keep(torch.tensor([2, 0]))
    assert memory.index.tolist() == wanted
    assert memory.extras["mark"].flatten().tolist() == wanted
    assert memory.pool().slot.tolist() == [0, 1]


def test_an_extra_column_of_the_wrong_length_is_refused():
    memory = Memory(MemorySettings(budget="9/class"))
    with pytest.raises(ContractViolation, match="'mark' has 2 rows for 1 exemplars"):
        memory._replace(new_rows({0: 1}), torch.zeros(1), {"mark": torch.zeros(2, 1)})


def test_the_memory_holds_copies_that_nobody_else_can_change():
    memory, extra = Memory(MemorySettings(budget="9/class")), torch.ones(2, 1, requires_grad=True)
    memory.update(new_rows({0: 2}), features_of(2), 1, 0, torch.Generator(), mark=extra * 1)
    with torch.no_grad():
        extra.zero_()
    assert memory.extras["mark"].tolist() == [[1], [1]]
    assert not memory.extras["mark"].requires_grad
