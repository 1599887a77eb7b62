"""Losses that learners share, against torch's own functions and numbers worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.batch import Batch
from imbcil.harness.losses import (
    decay_positives,
    knowledge_distillation,
    probability_gap,
    require_same_shape,
    sigmoid_distillation,
)
from imbcil.harness.tools import base_criterion

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 6, 5, generator=GENERATOR, dtype=torch.float64)
BATCH: Batch = None  # type: ignore[assignment]  # the plain criterion does not look at it


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_distillation_is_torchs_cross_entropy_with_soft_targets(temperature: float):
    expected = F.cross_entropy(STUDENT / temperature, F.softmax(TEACHER / temperature, dim=1))
    assert float(knowledge_distillation(STUDENT, TEACHER, temperature)) == pytest.approx(float(expected))


def test_a_worked_value_of_distillation():
    """Teacher (0, ln 3) gives 1/4 and 3/4 at temperature 1; the student (0, 0) gives ln 2 in any case."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    assert float(knowledge_distillation(student, teacher, 1.0)) == pytest.approx(math.log(2))
    reversed_roles = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    assert float(knowledge_distillation(teacher, student, 1.0)) == pytest.approx(reversed_roles)


def test_distillation_has_no_factor_of_the_squared_temperature():
    """Small logits: the gradient is that of T = 1 over T squared."""
    small = (1e-4 * STUDENT).requires_grad_()
    grads = [
        torch.autograd.grad(knowledge_distillation(small, 1e-4 * TEACHER, t), small)[0] for t in (1.0, 2.0)
    ]
    torch.testing.assert_close(grads[1], grads[0] / 4, rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss", [knowledge_distillation, sigmoid_distillation])
def test_no_gradient_reaches_the_teacher_and_it_vanishes_when_both_agree(loss):
    student, teacher = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert float(student.grad.abs().max()) < 1e-12


def test_sigmoid_distillation_sums_over_classes_and_averages_over_rows():
    target = torch.sigmoid(TEACHER)
    expected = -(target * STUDENT.sigmoid().log() + (1 - target) * (1 - STUDENT.sigmoid()).log())
    assert float(sigmoid_distillation(STUDENT, TEACHER)) == pytest.approx(float(expected.sum() / 6))


def test_a_worked_value_of_sigmoid_distillation():
    assert float(sigmoid_distillation(torch.zeros(2, 3), torch.zeros(2, 3))) == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("loss", [knowledge_distillation, sigmoid_distillation])
def test_shapes_that_disagree_are_refused_with_both_shapes(loss):
    with pytest.raises(ContractViolation, match=r"student \[6, 5\], teacher \[6, 4\]"):
        loss(STUDENT, TEACHER[:, :4])


def test_shapes_that_agree_pass():
    assert require_same_shape(a=STUDENT, b=TEACHER, c=STUDENT) is None


@pytest.mark.parametrize("classes", [slice(0, 5), slice(2, 5)])
def test_the_plain_criterion_is_cross_entropy_over_the_classes_asked_for(classes: slice):
    targets = torch.tensor([2, 3, 4, 2, 2, 4])
    losses = base_criterion(BATCH, STUDENT[:, classes], targets, classes)
    logits = STUDENT[:, classes]
    by_hand = logits.logsumexp(dim=1) - logits[torch.arange(6), targets - classes.start]
    torch.testing.assert_close(losses, by_hand)


def test_the_plain_criterion_takes_several_labels_a_row():
    targets = (TEACHER > 0).double()
    losses = base_criterion(BATCH, STUDENT[:, 1:3], targets, slice(1, 3))
    expected = F.binary_cross_entropy(STUDENT[:, 1:3].sigmoid(), targets[:, 1:3], reduction="none")
    torch.testing.assert_close(losses, expected)
    assert losses.shape == (6, 2)


def test_decayed_positives_leave_the_negative_half_alone():
    logits, targets, weight = (
        torch.tensor([[0.7, -0.2]]),
        torch.tensor([[0.25, 1.0]]),
        torch.tensor([[0.5, 0.0]]),
    )
    cells = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = [1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(0.2))]
    expected = [-0.5 * 0.25 * math.log(p[0]) - 0.75 * math.log(1 - p[0]), 0.0]
    assert decay_positives(cells, logits, targets, weight)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_gap_is_between_the_means_of_positives_and_negatives_that_are_known():
    p = torch.tensor([[0.9, 0.4], [0.5, 0.1]])
    targets = torch.tensor([[1.0, float("nan")], [1.0, 0.0]])
    assert float(probability_gap(p, targets)) == pytest.approx(0.7 - 0.1)
    assert float(probability_gap(p, torch.ones(2, 2))) == pytest.approx(
        0.475
    )  # no negatives: their mean counts as 0
