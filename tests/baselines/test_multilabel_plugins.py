"""Losses for several labels an image against the cards, derived anew in float64 with plain loops; and short runs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_multi_scenario, tiny_plan, tiny_runner
from torch import Tensor

from imbcil.baselines.plugins.asl import ASLConfig, asymmetric_loss
from imbcil.baselines.plugins.db_loss import DBLossConfig, distribution_balanced
from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import load_plugin
from imbcil.harness.batch import Batch
from imbcil.harness.rebalancing import effective_number_weights
from imbcil.harness.tools import base_criterion

NAN = float("nan")
LOGITS = 2 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [NAN, 1.0, 0.0], [0.0, NAN, NAN]])
COUNTS, IMAGES = torch.tensor([775.0, 82.0, 4.0]), 1142  # of VOC-MLT: person, sofa, cow


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def cells() -> list[tuple[int, int, float, float]]:
    """(row, class, logit, label) of every visible cell."""
    pairs = [(row, label) for row in range(5) for label in range(3)]
    return [
        (row, c, float(LOGITS[row, c]), float(TARGETS[row, c]))
        for row, c in pairs
        if not TARGETS[row, c].isnan()
    ]


def check(found: Tensor, expected: dict[tuple[int, int], float]) -> None:
    for row in range(5):
        for label in range(3):
            value = expected.get((row, label), 0.0)  # hidden cells count nothing
            assert found[row, label].item() == pytest.approx(value, rel=2e-4, abs=1e-7), (row, label)


@pytest.mark.parametrize(
    ("positive", "negative", "margin"), [(0.0, 4.0, 0.05), (1.0, 4.0, 0.05), (0.0, 0.0, 0.0)]
)
def test_asl_is_the_cards_formula(positive: float, negative: float, margin: float) -> None:
    expected = {}
    for row, label, z, y in cells():
        p = sigmoid(z)
        lowered = max(p - margin, 0.0)
        expected[row, label] = (
            -((1 - p) ** positive) * math.log(p) if y else -(lowered**negative) * math.log(1 - lowered)
        )
    cfg = ASLConfig(gamma_positive=positive, gamma_negative=negative, margin=margin)
    check(asymmetric_loss(LOGITS, TARGETS, cfg), expected)


def test_asl_without_focus_and_margin_is_binary_cross_entropy() -> None:
    cfg = ASLConfig(gamma_positive=0, gamma_negative=0, margin=0)
    expected = base_criterion(batch(), LOGITS, TARGETS, slice(0, 3))
    assert torch.allclose(asymmetric_loss(LOGITS, TARGETS, cfg), expected, atol=1e-5)


@pytest.mark.parametrize("differentiate", [False, True])
def test_asls_factor_has_a_gradient_only_if_asked(differentiate: bool) -> None:
    logits = torch.tensor([[1.0]], requires_grad=True)
    asymmetric_loss(logits, torch.tensor([[0.0]]), ASLConfig(differentiate=differentiate)).sum().backward()
    p, slope = sigmoid(1.0), sigmoid(1.0) * (1 - sigmoid(1.0))
    lowered = p - 0.05
    expected = lowered**4 / (1 - lowered) * slope
    if differentiate:
        expected += -4 * lowered**3 * slope * math.log(1 - lowered)
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(expected, rel=1e-4)


def test_hidden_cells_have_no_loss_and_no_gradient() -> None:
    for loss in (
        lambda logits: asymmetric_loss(logits, TARGETS, ASLConfig(differentiate=True, gamma_positive=1)),
        lambda logits: distribution_balanced(logits, TARGETS, COUNTS, IMAGES, DBLossConfig()),
    ):
        logits = LOGITS.clone().requires_grad_()
        loss(logits).sum().backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())
        assert torch.equal(logits.grad == 0, TARGETS.isnan())


@pytest.mark.parametrize(("gamma", "tolerance", "mu"), [(0.0, 5.0, 0.3), (2.0, 5.0, 0.3), (2.0, 2.0, 0.2)])
def test_db_loss_is_the_cards_formula(gamma: float, tolerance: float, mu: float) -> None:
    counts, expected = COUNTS.tolist(), {}
    for row, label, z, y in cells():
        positives = [c for r, c, _, t in cells() if r == row and t]
        together = sum(1 / counts[c] for c in positives)
        ratio = (1 / counts[label]) / together if positives else math.inf
        weight = 0.1 + (sigmoid(10 * (ratio - mu)) if positives else 1.0)
        shifted = z - 0.05 / tolerance * math.log(IMAGES / counts[label] - 1)
        if y:
            plain, factor = math.log(1 + math.exp(-shifted)), 1.0
        else:
            plain, factor = math.log(1 + math.exp(tolerance * shifted)), 1 / tolerance
        focus = 2 * (1 - math.exp(-plain)) ** gamma if gamma else 1.0
        expected[row, label] = weight * factor * focus * plain
    cfg = DBLossConfig(gamma=gamma, tolerance=tolerance, mu=mu)
    check(distribution_balanced(LOGITS, TARGETS, COUNTS, IMAGES, cfg), expected)


def test_db_loss_survives_a_class_in_every_image_and_one_in_none() -> None:
    counts = torch.tensor([1142.0, 0.0, 4.0])
    assert bool(distribution_balanced(LOGITS, TARGETS, counts, IMAGES, DBLossConfig()).isfinite().all())


def batch() -> Batch:
    rows = torch.arange(5)
    return Batch(
        images=torch.zeros(5, 3, 8, 8), targets=TARGETS, mask=~TARGETS.isnan(), index=rows, slot=rows, stream=rows,
        counts=COUNTS, stage="train", epoch=0, step=0, steps=1, total=1,
    )  # fmt: skip


def test_sigmoid_focal_and_class_balanced_losses_are_those_of_their_formulas() -> None:
    focal, balanced = load_plugin("focal"), load_plugin("class_balanced_loss")
    expected, weighted = {}, {}
    weights = effective_number_weights(COUNTS, 0.9999).tolist()
    for row, label, z, y in cells():
        p = sigmoid(z) if y else 1 - sigmoid(z)
        expected[row, label] = -((1 - p) ** 2) * math.log(p)
        weighted[row, label] = -weights[label] * math.log(p)
    for kind, values in ((focal, expected), (balanced, weighted)):
        criterion = kind(kind.Config(), "it").criterion(base_criterion)
        check(criterion(batch(), LOGITS, TARGETS, slice(0, 3)), values)


def test_db_loss_counts_the_images_of_its_stage(tmp_path: Path) -> None:
    runner = tiny_runner("replay+db_loss", tmp_path, scenario=tiny_multi_scenario())
    runner._run_phase()
    assert runner.plugins.items[0].state["images"] == len(runner.s.scenario.phases[0].train)


def discrepancies(store: Path, form: str) -> dict[str, Any]:
    runner = tiny_runner(
        "replay+more",
        store,
        scenario=tiny_multi_scenario(),
        settings={"more.form": form, "more.schedule": "constant"},
    )
    runner._run_phase()
    return runner.learner.tools.logged_per_class


def test_more_runs_in_both_multi_label_forms(tmp_path: Path) -> None:
    found = [discrepancies(tmp_path / form, form)["more_discrepancy"] for form in ("per_label", "per_image")]
    assert all(bool(values.isfinite().all()) and bool(values.any()) for values in found)
    assert not torch.equal(*found)


@pytest.mark.parametrize("name", ["mixup", "lws", "crt", "ldam_drw", "logit_adjustment", "balanced_softmax"])
def test_plug_ins_for_one_label_are_refused_with_several(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{name} works on single labels; this protocol has multi ones"):
        tiny_plan(f"replay+{name}", tmp_path, scenario=tiny_multi_scenario())
