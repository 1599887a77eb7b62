"""The label firewall: what of the labels a learner sees, by policy, and that the rest never leaves the harness."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_multi_scenario, tiny_runner
from torch import Tensor

from imbcil.harness.base.errors import BadInput, ContractViolation
from imbcil.harness.batch import Phase
from imbcil.harness.images import ImageBank
from imbcil.harness.labels import CURRENT_MODEL, PAST_MODEL, LabelFirewall, fill_pseudo
from imbcil.harness.loop import batch_targets
from imbcil.harness.memory import Memory
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner
from imbcil.harness.settings import MemorySettings

NAN = float("nan")
# five images, four classes that arrive two by two; 255 is ignored
TRUTH = torch.tensor(
    [[1, 0, 1, 0], [0, 1, 0, 1], [0, 255, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.uint8
)
FIRST, SECOND = torch.tensor([0, 1, 3]), torch.tensor([0, 1, 2, 4])


def firewall(
    policy: Any = "mask_current", memory: Any = "capture_only", privileged: bool = False
) -> LabelFirewall:
    return LabelFirewall(TRUTH, policy, memory, 0.5, privileged)


def second_phase(policy: Any = "mask_current", memory: Any = "capture_only") -> tuple[LabelFirewall, Memory]:
    """Images 1 and 3 were kept in the first phase; the second one is open."""
    wall = firewall(policy, memory)
    held = Memory(MemorySettings(budget="4/class"), wall)
    wall.open(0, 2, FIRST)
    held.add(wall.new_pool(torch.tensor([1, 3])), 0)
    wall.open(2, 4, SECOND)
    wall.refresh(held)
    return wall, held


def same(left: Tensor, right: list[list[float]]) -> bool:
    return torch.equal(left.nan_to_num(-1), torch.tensor(right).nan_to_num(-1))


def test_new_images_show_the_phases_own_columns_alone():
    wall, held = second_phase()
    targets, mask = wall.view(wall.new_pool(SECOND), held)
    assert same(targets, [[NAN, NAN, 1, 0], [NAN, NAN, 0, 1], [NAN, NAN, 1, 1], [NAN, NAN, 0, 1]])
    assert torch.equal(mask, ~targets.isnan())


def test_a_policy_may_read_old_columns_as_negative_but_never_as_they_are():
    wall, held = second_phase("assume_negative")
    targets, _ = wall.view(wall.new_pool(SECOND), held)
    assert same(targets[:, :2], [[0, 0]] * 4)


def test_exemplars_show_what_was_visible_when_they_were_stored():
    wall, held = second_phase()
    targets, mask = wall.view(held.pool(), held)
    assert same(targets, [[0, 1, NAN, NAN], [1, 1, NAN, NAN]])
    assert mask.sum(dim=1).tolist() == [2, 2]


def test_an_image_in_memory_and_in_new_data_keeps_two_masks():
    wall, held = second_phase()
    pool = held.pool() + wall.new_pool(torch.tensor([1]))
    assert same(wall.view(pool, held)[0][[0, 2]], [[0, 1, NAN, NAN], [NAN, NAN, 0, 1]])


def test_an_oracle_shows_the_truth_of_later_columns_or_of_all():
    _, forward = second_phase(memory="oracle_forward")
    assert same(forward.visible_targets(), [[0, 1, 0, 1], [1, 1, 0, 0]])
    wall = firewall(memory="oracle_forward")
    late = Memory(MemorySettings(budget="4/class"), wall)
    wall.open(0, 2, FIRST)
    wall.open(2, 4, SECOND)
    late.add(wall.new_pool(torch.tensor([0, 2])), 1)
    wall.refresh(late)
    assert same(late.visible_targets(), [[NAN, NAN, 1, 0], [NAN, NAN, 1, 1]])
    wall = firewall(memory="oracle_full")
    full = Memory(late.settings, wall)
    full.load_state(late.to_state())
    wall.open(2, 4, SECOND)
    wall.refresh(full)
    assert same(full.visible_targets(), [[1, 0, 1, 0], [0, NAN, 1, 1]])


def test_ignored_cells_are_hidden_in_their_own_phase():
    wall = firewall()
    wall.open(0, 2, torch.tensor([2, 3]))
    targets, _ = wall.view(wall.new_pool(torch.tensor([2, 3])), Memory(MemorySettings(budget="0"), wall))
    assert same(targets, [[0, NAN], [1, 1]])


def test_counts_and_quota_classes_come_from_visible_positives():
    wall, held = second_phase()
    new = wall.new_pool(SECOND)
    assert new.counts(4).tolist() == [0, 0, 2, 3]
    assert new.quota.tolist() == [2, 3, 2, 3]  # class 2 is the rarer one
    assert (held.pool() + new).counts(4).tolist() == [1, 2, 2, 3]
    assert new[torch.tensor([2, 3])].counts(4).tolist() == [0, 0, 1, 2]


def test_labels_of_images_that_are_not_new_are_closed():
    wall, held = second_phase()
    one = torch.tensor([3])
    with pytest.raises(ContractViolation, match="outside this phase's new data are closed"):
        wall.view(Pool.of_new(one, one), held)


def test_a_pool_from_before_the_memory_changed_is_refused():
    wall, held = second_phase()
    stale = held.pool()
    held.keep(torch.tensor([1]))
    with pytest.raises(ContractViolation, match="older than the memory"):
        wall.view(stale, held)


def test_relabelling_needs_its_policy_and_leaves_given_labels_alone():
    _, closed = second_phase()
    with pytest.raises(ContractViolation, match=r"labels\.memory = relabel"):
        closed.relabel(torch.tensor([0]), slice(2, 4), torch.ones(1, 2), CURRENT_MODEL)
    _, held = second_phase(memory="relabel")
    held.relabel(
        torch.arange(2), slice(1, 4), torch.tensor([[0.0, 0.9, NAN], [0.0, 0.1, 1.0]]), CURRENT_MODEL
    )
    assert same(held.visible_targets(), [[0, 1, 0.9, NAN], [1, 1, 0.1, 1]])
    assert held.extras["prov"].tolist() == [[1, 1, 3, 0], [1, 1, 3, 3]]
    held.relabel(torch.tensor([1]), slice(2, 3), torch.tensor([[1.0]]), PAST_MODEL)
    assert held.extras["prov"].tolist() == [[1, 1, 3, 0], [1, 1, 2, 3]]


def test_labels_travel_with_rows_that_are_chosen_again():
    wall, held = second_phase(memory="relabel")
    held.relabel(torch.arange(2), slice(2, 4), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), CURRENT_MODEL)
    candidates = held.pool() + wall.new_pool(SECOND)
    generator = torch.Generator().manual_seed(0)
    held.update(candidates, torch.randn(6, 3, generator=generator), 4, 1, generator)
    first = held.index.tolist().index(3)
    assert same(held.visible_targets()[first : first + 1], [[1, 1, 0, 1]])
    assert held.extras["prov"][first].tolist() == [1, 1, 3, 3]


def test_pseudo_labels_fill_the_old_columns_of_new_rows_only():
    targets = torch.tensor([[NAN, NAN, 1.0], [0.0, 1.0, NAN]])
    images = torch.zeros(2, 3, 4, 4)
    filled, mask = fill_pseudo(
        targets, torch.tensor([-1, 0]), 2, images, lambda x: torch.tensor([[1.0, 0.0]] * 2)
    )
    assert same(filled, [[1, 0, 1], [0, 1, NAN]])
    assert mask.tolist() == [[True] * 3, [True, True, False]]


def at_phase(method: str, store: Path, phase: int, **options: Any) -> tuple[Runner, Phase]:
    runner = tiny_runner(method, store, scenario=tiny_multi_scenario(), **options)
    for _ in range(phase):
        runner._run_phase()
    return runner, runner._phase_view(begins=True)


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.2])
def test_a_threshold_that_no_probability_can_tell_apart_is_refused(value: float, tmp_path: Path):
    with pytest.raises(BadInput, match=r"labels\.threshold"):
        tiny_runner(
            "lwf", tmp_path, scenario=tiny_multi_scenario(),
            settings={"labels.policy": "pseudo_old", "labels.threshold": value},
        )  # fmt: skip


def test_a_learner_that_asks_for_a_hidden_column_gets_an_error(tmp_path: Path):
    runner, phase = at_phase("replay", tmp_path, 1)
    tools = runner.learner.tools
    assert set(tools.labels(phase.new, phase.cur).unique().tolist()) == {1.0}
    with pytest.raises(PermissionError, match="Columns 0 to 2 are not visible"):
        tools.labels(phase.new, phase.old)
    with pytest.raises(PermissionError, match="Columns 4 to 5 are not visible"):
        tools.labels(phase.new, slice(4, 6))
    with pytest.raises(PermissionError, match="Past data are closed"):
        _ = phase.past


def test_a_loss_that_ignores_the_mask_is_not_finite(tmp_path: Path):
    runner, phase = at_phase("replay", tmp_path, 1)
    targets, _ = batch_targets(runner.learner, phase.new, torch.zeros(len(phase.new), 3, 8, 8))
    assert targets.isnan().any()
    logits = torch.zeros_like(targets)
    assert torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).isnan()


def test_joint_training_sees_each_image_once_with_all_seen_columns(tmp_path: Path):
    runner, phase = at_phase("joint", tmp_path, 1)
    pool = phase.past + phase.new
    assert len(pool.index.unique()) == len(pool)
    targets, _ = runner.learner.tools.targets(pool)
    assert targets.isnan().sum() == 1  # the ignored cell


def test_seen_counts_are_the_positives_of_each_classs_own_phase(tmp_path: Path):
    runner, phase = at_phase("replay", tmp_path, 2)
    assert phase.seen_counts.tolist() == runner.s.scenario.raw_counts.tolist()


def test_pseudo_old_needs_a_model_of_the_past(tmp_path: Path):
    with pytest.raises(
        BadInput, match=r"pseudo_old needs labels from a model of the past, and replay keeps none"
    ):
        tiny_runner(
            "replay", tmp_path, scenario=tiny_multi_scenario(), settings={"labels.policy": "pseudo_old"}
        )


def test_the_policies_of_a_run_are_recorded(tmp_path: Path):
    runner, _ = at_phase("replay", tmp_path, 0, settings={"labels.memory": "oracle_forward"})
    info = runner.s.info
    assert (info.label_kind, info.label_policy, info.memory_labels) == (
        "multi",
        "mask_current",
        "oracle_forward",
    )
    assert info.oracle_memory


def public_parts(whole: object) -> Iterator[object]:
    """What hangs on an object under a name that is not private, and what a container holds."""
    if isinstance(whole, Mapping):
        yield from whole.values()
    elif isinstance(whole, list | tuple):
        yield from whole
    elif type(whole).__module__.startswith("imbcil") and not isinstance(whole, torch.nn.Module):
        for name in dir(whole):
            if not name.startswith(("_", "model_")):  # pydantic's own
                with suppress(AttributeError, PermissionError):
                    yield getattr(whole, name)


def reachable(*handed: object) -> dict[int, object]:
    """Every object that public names lead to, by its identity."""
    found: dict[int, object] = {}
    left = list(handed)
    while left:
        thing = left.pop()
        if id(thing) not in found:
            found[id(thing)] = thing
            left += public_parts(thing)
    return found


@pytest.mark.parametrize("method", ["replay", "rebll"])
def test_no_public_name_leads_from_a_learner_to_the_truth(method: str, tmp_path: Path):
    runner, phase = at_phase(method, tmp_path, 1)
    found = reachable(runner.learner, phase).values()
    assert sum(isinstance(thing, Pool) for thing in found) >= 2
    assert any(thing is runner.learner.memory for thing in found)
    assert [type(thing).__name__ for thing in found if isinstance(thing, LabelFirewall | ImageBank)] == []
