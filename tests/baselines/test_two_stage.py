"""Two-stage: identity at first, what the stage may move, who sees the scales, its rates and the port's quirks."""

import math
from pathlib import Path

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_runner

from imbcil.baselines.plugins.two_stage import half_cosine, scale_schedule
from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Phase, Stage
from imbcil.harness.optimiser import NamedOptimiser
from imbcil.harness.runner import Runner
from imbcil.harness.samplers import ClassAware


def last_stage(runner: Runner, phase: Phase) -> Stage:
    return runner.plugins.stages(phase, runner.learner)[-1]


def test_new_scales_change_no_score_and_later_phases_keep_the_old_ones(tmp_path: Path) -> None:
    runner, phase = begun("replay+two_stage", tmp_path, phase=2)
    a, b = runner.learner.net.calibrator("lws").vectors()
    assert (a[:4] != 1).all() and torch.equal(a[4:], torch.ones(2)) and not b.any()
    raw = torch.randn(3, 6)
    assert torch.allclose(runner.learner.net.calibrated(outputs(raw), "test"), raw * a)
    assert phase.index == 2


@pytest.mark.parametrize("learner", ["replay", "wa", "bic", "eeil"])
def test_the_stage_moves_the_newest_rows_and_all_scales_and_nothing_else(
    learner: str, tmp_path: Path
) -> None:
    runner, phase = begun(f"{learner}+two_stage", tmp_path, phase=2)
    before = {name: value.clone() for name, value in runner.learner.net.state_dict().items()}
    runner._run_stage(phase, last_stage(runner, phase))
    now = runner.learner.net.state_dict()
    moved = {name for name, value in now.items() if not torch.equal(value, before[name])}
    assert moved == {
        "head.blocks.2.weight", "head.blocks.2.bias",
        *(f"calibrators.lws.blocks.{number}.a" for number in range(3)),
    }  # fmt: skip


def test_the_loss_is_cross_entropy_of_the_scaled_logits_over_all_classes(tmp_path: Path) -> None:
    runner, phase = begun("replay+two_stage", tmp_path, phase=2)
    batch = batch_of(runner, phase.memory + phase.new)
    scales = torch.tensor([0.5, 2.0, 1.0, 3.0, 1.5, 0.2])
    runner.learner.net.calibrator("lws").set(a=scales)
    raw = torch.randn(len(batch.targets), 6, generator=torch.Generator().manual_seed(7))
    found = last_stage(runner, phase).loss(batch, outputs(raw))
    scaled = raw.double() * scales.double()
    expected = -scaled.log_softmax(1)[torch.arange(len(raw)), batch.targets].mean()
    assert set(found) == {"ce"} and found["ce"].item() == pytest.approx(float(expected), rel=1e-5)


def test_teacher_and_training_never_see_the_scales(tmp_path: Path) -> None:
    runner, phase = begun("eeil+two_stage", tmp_path, phase=2)
    learner, batch = runner.learner, batch_of(runner, phase.new)
    with torch.no_grad():
        raw = learner.state["old"](batch.images).logits
    assert torch.equal(learner.teacher_logits(batch), raw)
    learner.net.calibrator("lws").set(a=torch.full((6,), 5.0))
    out = outputs(torch.randn(2, 6))
    assert torch.equal(learner.net.calibrated(out, "train"), out.logits)


def test_learning_rates_are_those_of_the_paper(tmp_path: Path) -> None:
    runner, phase = begun("replay+two_stage", tmp_path, phase=1)
    stage = last_stage(runner, phase)
    assert (stage.optim.epochs, stage.optim.lr, stage.optim.clip_norm) == (30, 0.1, 1e4)
    assert stage.sampler == ClassAware(per=4)
    for epoch in range(30):
        head = 0.05 * (1 + math.cos(math.pi * epoch / 30))
        assert 0.1 * half_cosine(epoch, 30) == pytest.approx(head)
        assert 0.1 * scale_schedule(epoch, 30) == pytest.approx(0.1 if epoch == 0 else head / 10)
    assert [group.schedule for group in stage.train] == [half_cosine, scale_schedule]


def test_the_stage_runs_in_the_first_phase_too_on_all_rows_at_hand(tmp_path: Path) -> None:
    runner, phase = begun("replay+two_stage", tmp_path, phase=0)
    names = [stage.name for stage in runner.plugins.stages(phase, runner.learner)]
    assert names == ["train", "two_stage"]
    later, second = begun("replay+two_stage", tmp_path / "later", phase=1)
    assert len(last_stage(later, second).pool) == len(second.memory) + len(second.new)


def test_released_trains_one_epoch_beside_eeil_and_the_rates_of_decay_are_those_of_the_code(
    tmp_path: Path,
) -> None:
    for preset, epochs, decay in (("released", 1, 5e-4), ("sound", 30, 0.0)):
        runner, phase = begun("eeil+two_stage", tmp_path / preset, phase=1, preset=preset)
        stage = last_stage(runner, phase)
        assert stage.optim.epochs == epochs
        head, scales = NamedOptimiser(runner.learner.net, stage).torch.param_groups
        assert (head["weight_decay"], scales["weight_decay"]) == (5e-4, decay)
    runner, phase = begun("wa+two_stage", tmp_path / "wa", phase=1, preset="released")
    assert last_stage(runner, phase).optim.epochs == 30


def test_released_skips_lucirs_own_stage_in_phases_of_at_most_ten_images_a_class(tmp_path: Path) -> None:
    runner, phase = begun("replay+two_stage", tmp_path, phase=1, settings={"two_stage.quirks": True})
    assert len(phase.new) <= 10
    assert len(runner.plugins.stages(phase, runner.learner)) == 2
    runner.learner.name = "lucir"
    assert [stage.name for stage in runner.plugins.stages(phase, runner.learner)] == ["two_stage"]
    object.__setattr__(phase, "new", phase.new + phase.new + phase.new)
    assert len(phase.new) > 10 and len(runner.plugins.stages(phase, runner.learner)) == 2


def test_two_stage_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two_stage stands there twice"):
        tiny_runner("replay+two_stage+two_stage", tmp_path)
