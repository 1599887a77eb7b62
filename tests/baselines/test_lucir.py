"""LUCIR: margin ranking, growth of lambda, imprinting, signed features, and old rows that rest."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from steps import begun
from tiny import tiny_runner
from torch import Tensor

from imbcil.baselines.lucir import margin_ranking
from imbcil.harness.contract import Phase
from imbcil.harness.loop import StageContext
from imbcil.harness.losses import cosine_distance
from imbcil.harness.network.network import freeze


def test_ranking_is_the_mean_over_old_samples_and_their_two_hardest_new_classes() -> None:
    generator = torch.Generator().manual_seed(3)
    cosines = torch.rand(5, 6, generator=generator, dtype=torch.float64) * 2 - 1
    targets = [0, 4, 2, 5, 1]
    losses = []
    for row, label in zip(cosines.tolist(), targets, strict=True):
        if label < 3:
            losses += [max(0.0, 0.5 - row[label] + rival) for rival in sorted(row[3:])[-2:]]
    expected = sum(losses) / len(losses)
    assert expected > 0
    value = margin_ranking(cosines, torch.tensor(targets), 3, 0.5, 2)
    assert float(value) == pytest.approx(expected, abs=1e-12)


def test_ranking_is_zero_without_old_samples_and_with_a_wide_margin_kept() -> None:
    cosines = torch.tensor([[1.0, 0.0, 0.4]])
    assert float(margin_ranking(cosines, torch.tensor([2]), 2, 0.5, 2)) == 0
    assert float(margin_ranking(cosines, torch.tensor([0]), 2, 0.5, 2)) == 0
    assert float(margin_ranking(cosines, torch.tensor([0]), 2, 0.7, 2)) == pytest.approx(0.1)


def test_ranking_uses_cosines_without_the_scale_and_lambda_grows_with_old_over_new() -> None:
    learner, batch = bare("lucir", 3), a_batch([0, 1, 3, 4], 5)
    learner.state["old"] = freeze(bare("lucir", 3, seed=7).net)
    learner.net.grow(2)
    with torch.no_grad():
        learner.net.head.scale.fill_(9.0)
    out = learner.net(batch.images)
    terms = learner.loss(batch, out)
    assert torch.allclose(out.logits, 9 * out.extras["cos"])
    ranking = margin_ranking(out.logits / 9, batch.targets, 3, 0.5, 2)
    assert terms["ranking"].item() == pytest.approx(ranking.item(), rel=1e-5)
    distance = cosine_distance(out.features, learner.state["old"](batch.images).features)
    assert terms["forget"].item() == pytest.approx(5 * math.sqrt(3 / 2) * distance.item(), rel=1e-5)


def test_features_are_signed_and_the_released_preset_does_not_imprint() -> None:
    learner = bare("lucir", 3)
    features = learner.net(torch.randn(16, 3, 8, 8)).features
    assert bool((features < 0).any()) and bool((features > 0).any())
    assert learner.presets["released"] == {"imprint": False}


def test_new_rows_are_the_mean_direction_of_their_class_at_the_mean_norm_of_old_rows(tmp_path: Path) -> None:
    runner = tiny_runner("lucir", tmp_path)
    learner, seen = runner.learner, []
    original = type(learner).begin_phase

    def watched(phase: Phase) -> None:
        original(learner, phase)
        if phase.index:
            new = learner.net.head.blocks[-1].weight
            old = learner.net.head.weight[: phase.lo]
            norm = float(old.detach().double().norm(dim=1).mean())
            sweep = learner.tools.sweep(phase.new)
            for label in range(phase.lo, phase.hi):
                rows = sweep.features[sweep.targets == label].double()
                mean = (rows / rows.norm(dim=1, keepdim=True)).mean(dim=0)
                assert torch.allclose(new[label - phase.lo].double(), norm * mean / mean.norm(), atol=1e-6)
                seen.append(label)

    object.__setattr__(learner, "begin_phase", watched)
    runner.run()
    assert seen == [3, 4, 5]


def test_a_class_without_a_row_keeps_its_drawn_weights() -> None:
    head = bare("lucir", 3, 2).net.head
    before = head.blocks[-1].weight.detach().clone()
    directions = torch.zeros(2, 16)
    directions[1, 4] = 1.0
    head.imprint(directions)
    assert torch.equal(head.blocks[-1].weight[0], before[0])
    assert head.blocks[-1].weight[1].norm().item() == pytest.approx(
        head.blocks[0].weight.norm(dim=1).mean().item()
    )


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_old_rows_are_bit_identical_after_training_and_the_scale_learns(share: float, tmp_path: Path) -> None:
    runner = tiny_runner("lucir", tmp_path, settings={"lucir.finetune_share": share})
    names: list[str] = []
    original = runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        blocks = list(runner.learner.net.head.blocks)
        before: list[Tensor] = [block.weight.clone() for block in blocks]
        scale = runner.learner.net.head.scale.clone()
        original(phase, stage)
        names.append(stage.name)
        old_rest = all(torch.equal(a, b.weight) for a, b in zip(before[:-1], blocks[:-1], strict=True))
        if stage.name == "train":
            assert old_rest and not torch.equal(before[-1], blocks[-1].weight)
            assert not torch.equal(scale, runner.learner.net.head.scale)
        else:
            assert not old_rest and torch.equal(scale, runner.learner.net.head.scale)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert names == (["train", "train", "classifier", "train", "classifier"] if share else ["train"] * 3)


def test_the_optional_stage_has_the_authors_rate_rows_and_loss(tmp_path: Path) -> None:
    """20 epochs at 0.01, a tenth from the tenth on, on the new set of exemplars, with the margin ranking."""
    train = {"epochs": 90, "lr": 0.1, "schedule": "multistep", "milestones": [30, 60]}
    settings = {"lucir.finetune_share": 20 / 90}
    runner, phase = begun("lucir", tmp_path / "rate", phase=0, recipe={"train": train}, settings=settings)
    optim = runner.learner.stages(replace(phase, index=1))[1].optim
    rates = [optim.lr * optim.lr_scale(epoch) for epoch in range(optim.epochs)]
    assert rates == pytest.approx([0.01] * 10 + [0.001] * 10)

    runner = tiny_runner("lucir", tmp_path / "rows", settings={"lucir.finetune_share": 0.5})
    seen: dict[int, tuple[list[int], set[str]]] = {}

    def step(context: StageContext, images: int) -> None:
        if context.stage.name == "classifier":
            seen[runner.place.phase] = (context.pool.index.tolist(), set(context.position.sums))

    runner._after_step = step  # type: ignore[method-assign]
    for index in range(3):
        runner._run_phase()
        if index:
            assert seen[index] == (runner.learner.memory.index.tolist(), {"ce", "forget", "ranking"})
