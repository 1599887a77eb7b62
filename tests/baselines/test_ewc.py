"""EWC: information against autograd row by row, clipping, merging, the penalty, and that its strength matters."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from steps import batch_of, begun
from tiny import tiny_runner
from torch import Tensor

from imbcil.baselines.ewc import flat
from imbcil.harness.runner import Runner


def finished(store: Path, **settings: object) -> Runner:
    runner = tiny_runner("ewc", store, settings={f"ewc.{name}": value for name, value in settings.items()})
    runner.run()
    return runner


def squared_slopes(runner: Runner, images: Tensor, targets: Tensor) -> Tensor:
    """The squared gradient of the mean cross-entropy, by a plain backward pass."""
    net = runner.learner.net
    net.zero_grad()
    F.cross_entropy(net(images).logits, targets).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()]).square()


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("labels", ["true", "predicted"])
def test_information_is_the_mean_squared_gradient_over_batches(
    size: int, labels: str, tmp_path: Path
) -> None:
    settings = {"ewc.batch": size, "ewc.clip": None, "ewc.labels": labels}
    runner, phase = begun("ewc", tmp_path, phase=0, settings=settings)
    net = runner.learner.net
    names = [name for name, _ in net.named_parameters()]
    found = runner.learner.information(phase.new, names)
    batch = batch_of(runner, phase.new)
    net.eval()
    targets = net(batch.images).logits.argmax(1) if labels == "predicted" else batch.targets
    parts = zip(batch.images.split(size), targets.split(size), strict=True)
    squares = [squared_slopes(runner, images, part) for images, part in parts]
    assert torch.allclose(found, torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    assert found.max() > 1e-4  # so that clipping has something to do


def test_information_is_clipped_and_changes_neither_modes_nor_statistics(tmp_path: Path) -> None:
    runner, phase = begun("ewc", tmp_path, phase=0)
    net = runner.learner.net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fisher = runner.learner.information(phase.new, [name for name, _ in net.named_parameters()])
    assert fisher.max() == pytest.approx(1e-4) and fisher.min() >= 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize(("merge", "share"), [(None, 3 / 4), (0.5, 0.5)])
def test_old_and_new_information_are_merged_and_new_weights_have_their_own(
    merge: float | None, share: float, tmp_path: Path
) -> None:
    runner, phase = begun("ewc", tmp_path, settings={"ewc.merge": merge})  # three old classes, one new
    learner = runner.learner
    old = learner.state["fisher"].clone()
    names = [name for name, _ in learner.net.named_parameters()]
    now = learner.information(phase.new, names)
    n_new = sum(value.numel() for value in learner.net.head.blocks[-1].parameters())
    assert len(now) == len(old) + n_new
    learner.end_phase(phase)
    merged = learner.state["fisher"]
    assert torch.allclose(merged[: len(old)], share * old + (1 - share) * now[: len(old)])
    assert torch.allclose(merged[len(old) :], now[len(old) :])
    assert torch.equal(learner.state["anchor"], flat(learner.net, names).detach())


def test_the_penalty_is_half_the_strength_times_the_weighted_squares_and_its_gradient_is_linear(
    tmp_path: Path,
) -> None:
    runner, phase = begun("ewc", tmp_path)
    learner, batch = runner.learner, batch_of(runner, phase.new)
    out = learner.net(batch.images)
    assert float(learner.loss(batch, out)["ewc"].detach()) == 0
    weight = learner.net.get_parameter("head.blocks.0.weight")
    with torch.no_grad():
        weight += 0.3
    at = sum(learner.net.get_parameter(n).numel() for n in learner.state["names"][:-2])
    assert learner.state["names"][-2] == "head.blocks.0.weight"
    fisher = learner.state["fisher"][at : at + weight.numel()].reshape(weight.shape)
    term = learner.loss(batch, learner.net(batch.images))["ewc"]
    assert term.item() == pytest.approx(500 * float(fisher.double().sum()) * 0.09, rel=1e-4)
    slope = torch.autograd.grad(term, weight)[0]
    assert torch.allclose(slope, 1000 * fisher * 0.3, rtol=1e-4, atol=1e-9)


def test_labels_pull_on_the_new_slice_alone(tmp_path: Path) -> None:
    runner, phase = begun("ewc", tmp_path, phase=2)
    batch = batch_of(runner, phase.new)
    out = runner.learner.net(batch.images)
    slope = torch.autograd.grad(runner.learner.loss(batch, out)["ce"], out.logits)[0]
    assert not slope[:, :4].any() and slope[:, 4:].any()


def test_a_greater_strength_keeps_the_weights_nearer_to_where_they_were(tmp_path: Path) -> None:
    distances = []
    for strength in (0.0, 1e4, 1e5):
        settings = {"ewc.strength": strength, "train.epochs": 6}
        runner, phase = begun("ewc", tmp_path / str(strength), phase=2, settings=settings)
        state, net = runner.learner.state, runner.learner.net
        fisher, anchor = state["fisher"].clone(), state["anchor"].clone()
        runner._run_stage(phase, runner.plugins.stages(phase, runner.learner)[0])
        distances.append(float((fisher * (flat(net, state["names"]).detach() - anchor).square()).sum()))
    assert distances[0] > 1.1 * distances[1] > 1.1**2 * distances[2]


def test_presets_carry_their_constants(tmp_path: Path) -> None:
    released = tiny_runner("ewc", tmp_path / "r", preset="released").learner.cfg
    assert (released.strength, released.clip, released.merge, released.labels) == (
        5000,
        None,
        0.5,
        "predicted",
    )
    sound = tiny_runner("ewc", tmp_path / "s", preset="sound").learner.cfg
    assert (sound.strength, sound.clip, sound.merge, sound.labels) == (1000, 1e-4, None, "true")
    assert len(finished(tmp_path / "whole", merge=0.5, labels="predicted").s.folder.records()) == 3
