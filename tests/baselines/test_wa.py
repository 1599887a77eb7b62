"""WA: the alignment makes mean norms equal, comes before teacher and evaluation, and clipping is a setting."""

from pathlib import Path

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_runner

from imbcil.harness.contract import Phase
from imbcil.harness.runner import Runner


def mean_norms(runner: Runner) -> tuple[float, float]:
    norms = runner.learner.net.head.row_norms()
    new = runner.learner.net.head.slices()[-1]
    return float(norms[: new.start].mean()), float(norms[new].mean())


def test_alignment_makes_the_two_mean_norms_equal_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    runner, _ = begun("wa", tmp_path)
    weight, bias = runner.learner.net.head.weight.clone(), runner.learner.net.head.bias.clone()
    before = mean_norms(runner)
    runner.learner.align()
    assert runner.learner.tools.logged["gamma"] == pytest.approx(before[0] / before[1], rel=1e-5)
    old, new = mean_norms(runner)
    assert (old, new) == (pytest.approx(before[0]), pytest.approx(before[0], rel=1e-5))
    assert float(runner.learner.net.head.align_newest()) == pytest.approx(1.0, rel=1e-6)
    lo = runner.learner.net.head.slices()[-1].start
    assert torch.equal(runner.learner.net.head.weight[:lo], weight[:lo])
    assert torch.equal(runner.learner.net.head.bias, bias)


@pytest.mark.parametrize("side", [0, -1])
def test_where_a_side_has_no_length_the_new_rows_are_left_alone(side: int, tmp_path: Path) -> None:
    runner, _ = begun("wa", tmp_path)
    head = runner.learner.net.head
    with torch.no_grad():
        head.blocks[side].weight.zero_()
    weight = head.weight.clone()
    assert float(head.align_newest()) == 1.0 and torch.equal(head.weight, weight)


@pytest.mark.parametrize("learner", ["wa", "der", "memo"])
def test_a_plug_in_that_works_on_the_head_after_training_finds_it_aligned(
    learner: str, tmp_path: Path
) -> None:
    fitted = tiny_runner(f"{learner}+tau_norm", tmp_path / "fitted")
    fitted.run()
    factors, _ = fitted.learner.net.calibrator("tau_norm").vectors()
    torch.testing.assert_close(factors * fitted.learner.net.head.row_norms(), torch.ones(6))
    trained, phase = begun(f"{learner}+two_stage", tmp_path / "trained", phase=2)
    stage, *_ = trained.plugins.stages(phase, trained.learner)
    trained._run_stage(phase, stage)
    old, new = mean_norms(trained)
    assert old == pytest.approx(new, rel=1e-5)  # and the last stage trains from there
    rows = trained.learner.net.head.weight[4:].clone()
    trained._end_phase(phase)
    assert torch.equal(trained.learner.net.head.weight[4:], rows)


def test_teacher_and_stored_scores_are_the_aligned_networks(tmp_path: Path) -> None:
    runner = tiny_runner("wa", tmp_path)
    runner.run()
    old, new = mean_norms(runner)
    assert old == pytest.approx(new, rel=1e-5)
    weights = runner.learner.state["old"].state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in runner.learner.net.state_dict().items())
    gammas = [record.metrics.get("phase/wa/gamma") for record in runner.s.folder.records()]
    assert gammas[0] is None and all(gamma > 0 and gamma != 1 for gamma in gammas[1:])


def test_the_loss_shares_out_one_between_labels_and_teacher_by_the_number_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("wa", tmp_path)  # three old classes and one new one
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(len(batch.targets), 4, generator=generator)
    taught = torch.randn(len(batch.targets), 3, generator=generator)
    monkeypatch.setattr(type(learner), "teacher_logits", lambda self, batch: taught)
    terms = learner.loss(batch, outputs(z))
    exact, target = z.double(), (taught.double() / 2).softmax(1)
    ce = -exact.log_softmax(1)[torch.arange(len(z)), batch.targets].mean()
    kd = -(target * (exact[:, :3] / 2).log_softmax(1)).sum(1).mean()
    assert float(terms["ce"]) == pytest.approx(float(ce) / 4, rel=1e-5)
    assert float(terms["kd"]) == pytest.approx(float(kd) * 3 / 4, rel=1e-5)


def test_released_keeps_the_weights_at_or_above_zero_without_bias_and_sound_does_neither(
    tmp_path: Path,
) -> None:
    def finished(preset: str) -> Runner:
        runner = tiny_runner("wa", tmp_path / preset, preset=preset)
        runner.run()
        return runner

    clipped, free = finished("released").learner.net.head, finished("sound").learner.net.head
    assert (clipped.weight >= 0).all() and (clipped.weight > 0).any() and clipped.bias is None
    assert (free.weight < 0).any() and free.bias is not None


def test_the_first_phase_has_no_teacher_and_no_alignment(tmp_path: Path) -> None:
    runner, phase = begun("wa", tmp_path, phase=0)
    batch = batch_of(runner, phase.new)
    assert set(runner.learner.loss(batch, runner.learner.net(batch.images))) == {"ce"}
    assert isinstance(phase, Phase) and phase.index == 0
