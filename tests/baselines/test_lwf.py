"""LwF: its two terms live on separate slices, and the teacher is the network of the phase before."""

from pathlib import Path

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_runner


def test_labels_pull_on_new_logits_and_the_teacher_on_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("lwf", tmp_path, phase=2)
    learner, batch = runner.learner, batch_of(runner, phase.new)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(len(batch.targets), 6, generator=generator, requires_grad=True)
    taught = torch.randn(len(batch.targets), 4, generator=generator)
    monkeypatch.setattr(type(learner), "teacher_logits", lambda self, batch: taught)
    terms = learner.loss(batch, outputs(z))
    exact, target = z.detach().double(), (taught.double() / 2).softmax(1)
    ce = -exact[:, 4:].log_softmax(1)[torch.arange(len(z)), batch.targets - 4].mean()
    kd = -(target * (exact[:, :4] / 2).log_softmax(1)).sum(1).mean()
    assert terms["ce"].item() == pytest.approx(float(ce), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(3 * float(kd), rel=1e-5)
    assert not torch.autograd.grad(terms["ce"], z, retain_graph=True)[0][:, :4].any()
    assert not torch.autograd.grad(terms["kd"], z)[0][:, 4:].any()


def test_nothing_is_kept_but_the_teacher(tmp_path: Path) -> None:
    runner = tiny_runner("lwf", tmp_path)
    runner.run()
    assert len(runner.learner.memory) == 0
    teacher = runner.learner.state["old"]
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(("preset", "weight"), [("sound", 3.0), ("released", 1.0)])
def test_the_presets_differ_in_the_teachers_weight(preset: str, weight: float, tmp_path: Path) -> None:
    assert tiny_runner("lwf", tmp_path, preset=preset).learner.cfg.distillation == weight
