"""Distillation per task and the sharing of BiC and WA, against plain float64."""

import pytest
import torch

from imbcil.harness.losses import proportioned, task_distillation

D = torch.float64
Z = torch.randn(5, 6, dtype=D, generator=torch.Generator().manual_seed(0))
OLD = torch.randn(5, 4, dtype=D, generator=torch.Generator().manual_seed(1))
TASKS = [slice(0, 2), slice(2, 4)]


def by_hand(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return -((teacher / 2).softmax(1) * (student / 2).log_softmax(1)).sum(1).mean()


def test_task_distillation_adds_up_the_tasks_and_ignores_what_is_outside_them() -> None:
    expected = by_hand(Z[:, :2], OLD[:, :2]) + by_hand(Z[:, 2:4], OLD[:, 2:4])
    assert float(task_distillation(Z, OLD, TASKS)) == pytest.approx(float(expected))
    assert float(task_distillation(Z, OLD, [])) == 0
    z = Z.clone().requires_grad_()
    task_distillation(z, OLD, TASKS).backward()
    assert z.grad[:, :4].all() and not z.grad[:, 4:].any()
    one_class = [slice(3, 4)]  # alone it has nothing to learn
    assert float(task_distillation(Z, OLD, one_class)) == 0


def test_its_gradient_is_that_of_the_divergence_and_vanishes_where_student_and_teacher_agree() -> None:
    z, other = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    task_distillation(z, OLD, TASKS[:1]).backward()
    student, target = (other[:, :2] / 2).log_softmax(1), (OLD[:, :2] / 2).log_softmax(1)
    (target.exp() * (target - student)).sum(1).mean().backward()
    assert torch.allclose(z.grad, other.grad)
    same = OLD.clone().requires_grad_()
    task_distillation(same, OLD, TASKS).backward()
    assert same.grad.abs().max() < 1e-15


def test_proportioned_weights_add_up_to_one() -> None:
    ce = torch.tensor(3.0, dtype=D)
    assert proportioned(ce, Z, None, 2.0) == {"ce": ce}
    terms = proportioned(ce, Z, OLD, 2.0)
    assert float(terms["ce"]) == pytest.approx(3 * 2 / 6)
    assert float(terms["kd"]) == pytest.approx(float(by_hand(Z[:, :4], OLD)) * 4 / 6)
