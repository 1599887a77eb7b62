"""MORE in runs: its controls, policies, statistics, stages, and what it does to rare classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from more_steps import IMAGES, ZERO_TERM, opened, wrapped
from steps import begun
from tiny import all_scores, tiny_runner
from torch import Tensor

from imbcil.harness.base.errors import RunStopped
from imbcil.methods.plugins._split import LowRank, split_modules


def test_amplitude_zero_is_the_run_whose_term_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "zero.py").write_text(ZERO_TERM)
    control = tiny_runner("replay+more", tmp_path / "a", settings={"more.amplitude": 0})
    zeroed = tiny_runner(f"replay+{tmp_path}/zero.py", tmp_path / "b")
    zeroed.plugins.items[0].name = "more"  # the name keys the tails' draws
    control.run()
    zeroed.run()
    for name, scores in all_scores(control.s.folder).items():
        assert (scores == all_scores(zeroed.s.folder)[name]).all(), name
    assert not any("more_discrepancy" in key for key in control.learner.tools.logged_per_class)
    plain = tiny_runner("replay", tmp_path / "c")
    plain.run()
    key = "2/test/fc"
    assert (all_scores(plain.s.folder)[key] != all_scores(control.s.folder)[key]).any()


@pytest.mark.parametrize("policy", ["merge", "keep", "freeze-stack", "resplit", "discard"])
def test_every_policy_starts_a_phase_from_the_function_it_ended_with(policy: str, tmp_path: Path) -> None:
    settings = {"more.policy": policy}
    plain, _ = begun("replay+more", tmp_path / "plain", 2, settings=settings)
    before = plain.learner.net.eval()(IMAGES).logits
    runner, _ = opened("replay+more", tmp_path / "open", 2, settings=settings)
    assert torch.allclose(runner.learner.net.eval()(IMAGES).logits, before, rtol=0, atol=1e-5)
    tails = {name: part.tail().abs().max() for name, part in split_modules(runner.learner.net).items()}
    assert (max(tails.values()) > 0) == (policy in ("keep", "resplit"))
    stacked = [
        part.stacked.abs().max()
        for part in split_modules(runner.learner.net).values()
        if hasattr(part, "stacked")
    ]
    assert (bool(stacked) and max(stacked) > 0) == (policy == "freeze-stack")


@pytest.mark.parametrize("policy", ["keep", "freeze-stack"])
def test_a_tail_is_not_taken_into_a_network_that_never_held_it(policy: str, tmp_path: Path) -> None:
    runner, _ = opened("foster+more", tmp_path, 2, settings={"more.policy": policy})
    splits = split_modules(runner.learner.net)
    assert splits and all(
        name.startswith("backbones.1.") for name in splits
    )  # the student of phase 1, doubled
    assert not any(part.added().any() for part in splits.values())


def test_discarding_goes_on_with_the_general_weights_alone() -> None:
    plugin, net = wrapped(policy="discard")
    general = {name: value.clone() for name, value in net.named_parameters() if "tail" not in name}
    plugin.unwrap(net)
    assert all(torch.equal(value, general[name]) for name, value in net.named_parameters())


def test_resplitting_takes_the_best_low_rank_part_of_the_update() -> None:
    generator = torch.Generator().manual_seed(3)
    part = LowRank(torch.Size((8, 4, 3, 3)), ((8, 2), (2, 36)), scale=2.0)
    update = torch.randn(8, 4, 3, 3, generator=generator)
    part.take(update)
    left, values, right = torch.linalg.svd(update.view(8, 36).double(), full_matrices=False)
    best = (left[:, :2] * values[:2]) @ right[:2]
    assert torch.allclose(part().view(8, 36).double(), best, atol=1e-5)


def test_batch_norm_statistics_of_a_run_are_those_of_the_full_pass(tmp_path: Path) -> None:
    """Each step counts once: the second pass of a step leaves no trace."""
    for method, key in (("replay", "plain"), ("replay+more", "more")):
        runner = tiny_runner(method, tmp_path / key)
        runner._run_phase()
        seen = {int(value) for name, value in runner.learner.net.named_buffers() if name.endswith("tracked")}
        assert seen == {6}  # 2 epochs of 3 batches


def test_weight_decay_of_the_factors_can_be_switched_off(tmp_path: Path) -> None:
    runner, stage = opened("replay+more", tmp_path, 0, settings={"more.decay": False})
    from imbcil.harness.optimiser import NamedOptimiser

    groups = NamedOptimiser(runner.learner.net, stage).torch.param_groups
    factors = {
        id(value) for part in split_modules(runner.learner.net).values() for value in part.tail.parameters()
    }
    assert [group["weight_decay"] for group in groups] == [0.0, 5e-4]
    assert {id(value) for value in groups[0]["params"]} == factors


def test_only_the_first_stage_of_a_phase_is_split_unless_all_are_asked_for(tmp_path: Path) -> None:
    for choice, expected in (("first", ["train"]), ("all", ["train", "balanced"])):
        runner, phase = begun("eeil+more+two_stage", tmp_path / choice, 1, settings={"more.stages": choice})
        plugin = runner.plugins.items[0]
        plugin.begin_phase(phase, runner.learner)
        stages = runner.plugins.stages(phase, runner.learner)
        assert [stage.name for stage in stages] == ["train", "balanced", "two_stage"]
        assert [stage.name for stage in stages if plugin.wants(stage)] == expected


def gap_by_class(amplitude: float, store: Path) -> Tensor:
    """Mean discrepancy of frequent (12 images) and rare (3) classes in the last epoch of the first phase."""
    settings = {
        "more.amplitude": amplitude,
        "more.schedule": "constant",
        "train.epochs": 25,
        "train.lr": 0.05,
    }
    runner = tiny_runner("replay+more", store, settings=settings, seed=1)
    runner._run_phase()
    return runner.learner.tools.logged_per_class["more_discrepancy"]


def test_after_a_short_run_the_discrepancy_is_larger_on_rare_than_on_frequent_classes(tmp_path: Path) -> None:
    found = gap_by_class(2.0, tmp_path / "more")
    assert found[1] > 1.25 * found[0]


def test_the_log_tells_of_the_last_epoch_even_where_a_plateau_ends_the_stage_early(tmp_path: Path) -> None:
    stopping = {"icarl.schedule": "plateau", "icarl.patience": 1, "icarl.lr_min": 1.0}
    runner = tiny_runner(
        "icarl+more", tmp_path, settings=stopping, recipe={"train": {"epochs": 30, "batch": 8, "lr": 0.2}}
    )
    runner._run_phase()
    assert runner.costs.trained_images < 30 * 21  # images of the phase: the stage did end early
    assert (runner.learner.tools.logged_per_class["more_discrepancy"] > 0).all()


@pytest.mark.parametrize(("settings", "hinted"), [({}, True), ({"more.amplitude": 0}, False)])
def test_a_run_that_diverges_is_told_to_lower_the_amplitude(
    settings: dict[str, Any], hinted: bool, tmp_path: Path
) -> None:
    runner = tiny_runner(
        "replay+more", tmp_path, settings=settings, recipe={"train": {"epochs": 4, "batch": 8, "lr": 1e20}}
    )
    with pytest.raises(
        RunStopped, match=r"try .*a smaller learning rate \(--set train.lr=...\)\.$"
    ) as stopped:
        runner.run()
    assert ("a smaller amplitude (--set more.amplitude=...) or" in str(stopped.value)) == hinted
