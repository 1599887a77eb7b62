"""The multi-label form of learners that have one for single labels: same file, same idea, binary cross-entropy."""

from pathlib import Path
from typing import Any

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_multi_scenario
from torch import Tensor

from imbcil.baselines.podnet import PODNetConfig
from imbcil.harness.batch import Phase
from imbcil.harness.losses import mean_over, soft_bce, visible_bce
from imbcil.harness.runner import Runner

NAN = float("nan")


def second_phase(name: str, store: Path, **options: Any) -> tuple[Runner, Phase]:
    return begun(name, store, scenario=tiny_multi_scenario(), **options)


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.double().sigmoid()
    return -(targets * p.log() + (1 - targets) * (1 - p).log())


def some_logits(rows: int, classes: int) -> Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(5), requires_grad=True)


def test_hidden_cells_add_nothing_and_pull_at_nothing():
    logits = some_logits(2, 3)
    targets = torch.tensor([[1.0, NAN, 0.3], [NAN, NAN, 0.0]])
    cells = visible_bce(logits, targets)
    loss = mean_over(cells, ~targets.isnan())
    expected = (
        bce(logits[0, 0], targets[0, 0]) + bce(logits[0, 2], targets[0, 2]) + bce(logits[1, 2], targets[1, 2])
    ) / 3
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False, True], [False, False, True]]


def test_soft_bce_is_the_teachers_cross_entropy_a_class_times_the_squared_temperature():
    student, teacher = some_logits(3, 2), torch.tensor([[2.0, -1.0], [0.0, 3.0], [-2.0, 0.5]])
    expected = 4 * bce(student / 2, (teacher / 2).double().sigmoid()).mean()
    assert float(soft_bce(student, teacher, 2.0).detach()) == pytest.approx(
        float(expected.detach()), rel=1e-6
    )


@pytest.mark.parametrize("name", ["finetune", "lwf", "ewc"])
def test_new_images_teach_old_columns_nothing_unless_the_policy_says_so(name: str, tmp_path: Path):
    for policy, pulls in (("mask_current", False), ("assume_negative", True)):
        runner, phase = second_phase(name, tmp_path / policy, settings={"labels.policy": policy})
        batch = batch_of(runner, phase.new)
        logits = some_logits(len(phase.new), 4)
        runner.learner.loss(batch, outputs(logits))["ce"].backward()
        assert logits.grad is not None
        assert bool((logits.grad[:, :3] != 0).any()) is pulls
        assert bool((logits.grad[:, 3:] != 0).all())


def test_lwf_distils_a_sigmoid_a_class(tmp_path: Path):
    runner, phase = second_phase("lwf", tmp_path, settings={"lwf.temperature": 1.0})
    batch = batch_of(runner, phase.new)
    teacher = runner.learner.teacher_logits(batch)
    assert teacher is not None
    logits = some_logits(len(phase.new), 4)
    terms = runner.learner.loss(batch, outputs(logits))
    expected = 3 * bce(logits[:, :3], teacher.double().sigmoid()).mean()
    assert float(terms["kd"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("name", ["replay", "icarl", "bic", "podnet"])
def test_exemplars_teach_the_columns_that_were_visible_when_they_were_stored(name: str, tmp_path: Path):
    runner, phase = second_phase(name, tmp_path)
    batch = batch_of(runner, phase.memory + phase.new)
    assert batch.mask is not None
    logits = some_logits(len(batch.targets), 4)
    plain = outputs(logits)
    term = runner.learner.classification_loss(batch, plain.logits)
    shown = ~batch.targets.isnan()
    expected = bce(logits, batch.targets.double())[shown].mean()
    assert float(term.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    old_rows, new_rows = batch.slot >= 0, batch.slot < 0
    assert not shown[old_rows, 3].any()
    assert not shown[new_rows, :3].any()


def test_icarl_has_exemplars_and_the_linear_head_alone(tmp_path: Path):
    runner, phase = second_phase("icarl", tmp_path)
    assert len(phase.memory)
    assert "means" not in runner.learner.state
    assert list(runner.learner.scores(torch.zeros(2, 3, 8, 8))) == ["fc"]


def test_podnet_takes_a_linear_head(tmp_path: Path):
    runner, _ = second_phase("podnet", tmp_path)
    assert runner.learner.net.spec().head.kind == "linear"


def test_podnet_sums_over_visible_cells_where_krts_weights_stand_beside(tmp_path: Path):
    runner, phase = second_phase("podnet", tmp_path, settings={"podnet.summed": True})
    batch = batch_of(runner, phase.memory + phase.new)
    logits = some_logits(len(batch.targets), 4)
    shown = ~batch.targets.isnan()
    found = runner.learner.classification(batch, outputs(logits))["nca"]
    expected = bce(logits, batch.targets.double())[shown].sum()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_sum_that_is_not_asked_for_leaves_podnets_identity_alone():
    assert "summed" not in PODNetConfig().model_dump()
    assert PODNetConfig(summed=True).model_dump()["summed"]


def test_ewc_information_is_the_squared_slope_of_the_visible_cells(tmp_path: Path):
    runner, phase = second_phase("ewc", tmp_path, settings={"ewc.clip": None})
    learner: Any = runner.learner
    found = learner.information(phase.new, ["head.blocks.0.bias", "head.blocks.1.bias"])
    assert found[:3].tolist() == [0, 0, 0]  # no old column is visible in new images
    logits = learner.tools.sweep(phase.new).logits[:, 3].double()
    targets = learner.tools.targets(phase.new)[0][:, 3].double()
    assert float(found[3]) == pytest.approx(float((logits.sigmoid() - targets).mean() ** 2), rel=1e-4)
