"""Mixup: images and label shares, its loss beside another criterion, where it stops."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import batch_of, begun
from torch import Tensor

from imbcil.harness.tools import base_criterion


def mixing(store: Path, method: str = "replay+mixup") -> Any:
    runner, phase = begun(method, store, 0)
    plugin = next(item for item in runner.plugins.items if item.name == "mixup")
    plugin.begin_phase(phase, runner.learner)
    stage = runner.plugins.stages(phase, runner.learner)[0]
    runner._allow_gradients(stage)
    plugin.begin_stage(stage, runner.learner)
    return runner, plugin, batch_of(runner, phase.new)


def test_mixup_mixes_images_and_label_shares_and_is_drawn_by_key(tmp_path: Path) -> None:
    _, plugin, given = mixing(tmp_path)
    untouched = given.images.clone()
    mixed, again = plugin.prepare(given), plugin.prepare(given)
    assert torch.equal(mixed.images, again.images)
    assert torch.equal(given.images, untouched)
    first, partner = mixed.scratch["mixup"]
    assert 0 < first < 1
    assert torch.allclose(mixed.images, first * untouched + (1 - first) * untouched[partner])
    one_hot = F.one_hot(given.targets, 3).float()
    assert torch.allclose(mixed.shares, first * one_hot + (1 - first) * one_hot[partner])
    assert torch.allclose(mixed.shares.sum(dim=1), torch.ones(len(one_hot)))
    given.step = 1
    assert not torch.equal(plugin.prepare(given).images, mixed.images)


def test_mixups_loss_is_cross_entropy_against_the_mixed_labels(tmp_path: Path) -> None:
    _, plugin, given = mixing(tmp_path)
    mixed = plugin.prepare(given)
    logits = torch.randn(len(given.targets), 3)
    found = plugin.criterion(base_criterion)(mixed, logits, mixed.targets, slice(0, 3))
    assert torch.allclose(found, F.cross_entropy(logits, mixed.shares, reduction="none"), atol=1e-6)


@pytest.mark.parametrize("method", ["replay+mixup+focal", "replay+focal+mixup"])
def test_another_criterion_is_asked_for_each_label_whatever_the_order(method: str, tmp_path: Path) -> None:
    runner, plugin, given = mixing(tmp_path, method)
    mixed = plugin.prepare(given)
    first, partner = mixed.scratch["mixup"]
    logits = torch.randn(len(given.targets), 3)

    def focused(labels: Tensor) -> Tensor:
        plain = F.cross_entropy(logits, labels, reduction="none")
        return (1 - torch.exp(-plain)) ** 2 * plain

    expected = first * focused(given.targets) + (1 - first) * focused(given.targets[partner])
    found = runner.plugins.criterion(base_criterion)(mixed, logits, mixed.targets, slice(0, 3))
    assert torch.allclose(found, expected, atol=1e-6)


def test_mixup_leaves_later_stages_alone(tmp_path: Path) -> None:
    runner, phase = begun("replay+mixup+crt", tmp_path, 0)
    plugin = runner.plugins.items[0]
    plugin.begin_phase(phase, runner.learner)
    for stage, mixes in zip(runner.plugins.stages(phase, runner.learner), (True, False), strict=True):
        runner._allow_gradients(stage)
        plugin.begin_stage(stage, runner.learner)
        given = batch_of(runner, phase.new)
        assert (plugin.prepare(given) is not given) == mixes


def test_the_lambda_of_mixup_is_beta_distributed(tmp_path: Path) -> None:
    _, plugin, given = mixing(tmp_path)
    drawn = []
    for step in range(300):
        given.step = step
        drawn.append(plugin.prepare(given).scratch["mixup"][0])
    values = torch.tensor(drawn)
    assert values.mean().item() == pytest.approx(0.5, abs=0.06)
    assert values.var().item() == pytest.approx(1 / 12, abs=0.015)  # Beta(1, 1)
