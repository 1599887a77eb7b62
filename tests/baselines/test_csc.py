"""CSC's graph against the same sums in plain loops, its loss worked by hand, and that every new row is trained."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_multi_scenario
from torch import Tensor

from imbcil.baselines.csc import CSCHead, entropy

MAPS = [torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))]


def grown(*splits: int, **options: Any) -> CSCHead:
    torch.manual_seed(1)
    head = CSCHead(6, **options)
    for classes in splits:
        head.grow(classes)
    with torch.no_grad():  # as if it had been trained a while: no link is at its starting value
        for value in head.parameters():
            value.add_(0.1 * torch.randn_like(value))
        head.norm.running_mean.uniform_(-1, 1)
        head.norm.running_var.uniform_(0.5, 2)
    return head.eval()


def leaky(values: Tensor) -> Tensor:
    return torch.where(values >= 0, values, 0.2 * values)


@torch.no_grad()
def by_hand(head: CSCHead, image: Tensor, phase_of: list[int]) -> tuple[list[float], list[float]]:
    """Both branches' logits for one map [dim, places], class by class."""
    first, second = head.nodes()
    k, older = len(phase_of), len(first.weight)
    rows = torch.cat([first.weight, second.weight])
    seen = head.project.weight[:, :, 0, 0] @ image + head.project.bias[:, None]
    cams = [row @ image for row in rows]
    start = [seen @ cam.softmax(0) for cam in cams]
    mixed = []
    for c in range(k):
        taken = torch.zeros(head.width, dtype=torch.float64)
        for other in range(k):
            if c >= older:
                link = second.takes[c - older, other]
            else:
                link = first.takes[c, other] if other < older else second.sends[c, other - older]
            taken = taken + link * start[other]
        mixed.append(start[c] + leaky(head.general(leaky(taken))))
    graph = []
    for c in range(k):
        mates = [mixed[other] for other in range(k) if phase_of[other] <= phase_of[c]]
        around = head.context(torch.stack(mates).mean(0))
        scaled = (around - head.norm.running_mean) / (head.norm.running_var + head.norm.eps).sqrt()
        around = leaky(scaled * head.norm.weight + head.norm.bias)
        taken = torch.zeros(head.width, dtype=torch.float64)
        for other in range(k):
            block, row = (first, other) if other < older else (second, other - older)
            ask = block.relation.weight[row] @ torch.cat([around, mixed[c]]) + block.relation.bias[row]
            opened = second.opening[c, row] if c < older <= other else 1.0
            taken = taken + ask.sigmoid() * opened * mixed[other]
        node = start[c] + leaky(head.specific(leaky(taken)))
        block, row = (first, c) if c < older else (second, c - older)
        graph.append(float(block.classifier.weight[row] @ node + block.classifier.bias[row]))
    return [float(cam.max()) for cam in cams], graph


@pytest.mark.parametrize(("join", "share"), [("mean", 0.5), ("sum", 1.0)])
def test_logits_join_the_maxima_of_the_maps_and_the_graph_of_all_classes(join: str, share: float):
    head = grown(2, 3, width=4, join=join)
    out = head(torch.zeros(3, 6), MAPS)
    exact = copy.deepcopy(head).double()
    for image in range(3):
        cam, graph = by_hand(exact, MAPS[0][image].double().flatten(1), [0, 0, 1, 1, 1])
        assert out["cam"][image].tolist() == pytest.approx(cam, rel=1e-5, abs=1e-6)
        assert out["graph"][image].tolist() == pytest.approx(graph, rel=1e-5, abs=1e-6)
        both = [share * (a + b) for a, b in zip(cam, graph, strict=True)]
        assert out["logits"][image].tolist() == pytest.approx(both, rel=1e-5, abs=1e-6)


def test_nodes_are_half_as_wide_as_the_features_unless_told():
    assert (CSCHead(2048).width, CSCHead(6, width=5).width) == (1024, 5)


def test_entropy_counts_the_positive_half_of_each_class_and_means_over_images():
    p = torch.tensor([[0.5, 0.9], [0.1, 0.2]], dtype=torch.float64)
    terms = [[-x * math.log(x) for x in row] for row in p.tolist()]
    assert float(entropy(p.logit())) == pytest.approx((sum(terms[0]) + sum(terms[1])) / 2)


def test_raising_the_entropy_draws_sure_predictions_back():
    logits = torch.tensor([[4.0, -4.0]], requires_grad=True)
    (-0.04 * entropy(logits)).backward()
    assert logits.grad is not None
    sure, unsure = logits.grad[0].tolist()
    assert sure > 0 > unsure  # a step against the gradient lowers the first and lifts the second


@pytest.mark.parametrize("scope", ["seen", "old"])
def test_the_loss_is_its_three_terms_over_their_columns(scope: str, tmp_path: Path):
    runner, phase = begun(
        "csc", tmp_path, scenario=tiny_multi_scenario(),
        settings={"csc.alpha": 0.3, "csc.entropy": 0.2, "csc.scope": scope},
    )  # fmt: skip
    learner: Any = runner.learner
    batch = batch_of(runner, phase.memory + phase.new)
    logits = torch.randn(len(batch.images), 4, generator=torch.Generator().manual_seed(2))
    terms = learner.loss(batch, outputs(logits))
    p, q = logits.double().sigmoid(), learner.state["old"](batch.images).logits.double().sigmoid()
    cells = [
        -math.log(p[row, column] if batch.targets[row, column] == 1 else 1 - p[row, column])
        for row, column in batch.mask.nonzero().tolist()
    ]
    assert float(terms["ce"]) == pytest.approx(0.3 * sum(cells) / len(cells), rel=1e-5)
    soft = -(q * p[:, :3].log() + (1 - q) * (1 - p[:, :3]).log()).mean()
    assert float(terms["kd"]) == pytest.approx(0.7 * float(soft), rel=1e-5)
    inside = p if scope == "seen" else p[:, :3]
    assert float(terms["entropy"]) == pytest.approx(
        0.2 * float((inside * inside.log()).sum(1).mean()), rel=1e-5
    )


def test_the_first_phase_is_plain_binary_cross_entropy(tmp_path: Path):
    runner, phase = begun("csc", tmp_path, 0, scenario=tiny_multi_scenario())
    terms = runner.learner.loss(batch_of(runner, phase.new), outputs(torch.zeros(len(phase.new), 3)))
    assert terms.keys() == {"ce"}
    assert float(terms["ce"]) == pytest.approx(math.log(2))


def test_every_row_that_a_new_class_brings_is_trained(tmp_path: Path):
    runner, phase = begun("csc", tmp_path, scenario=tiny_multi_scenario())
    fresh = runner.learner.net.head.blocks[-1]
    before = {name: value.detach().clone() for name, value in fresh.named_parameters()}
    assert not bool(before["sends"].any() or before["opening"].any())
    runner._run_stage(phase, runner.plugins.stages(phase, runner.learner)[0])
    for name, value in fresh.named_parameters():
        assert bool((value != before[name]).all()), name
