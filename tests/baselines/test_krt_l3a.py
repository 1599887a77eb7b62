"""KRT's tokens, threshold and loss; L3A's regression against the one solution over all rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steps import batch_of, begun
from tiny import all_scores, tiny_multi_scenario, tiny_runner

from imbcil.baselines.krt import KRTHead, matching_threshold
from imbcil.baselines.l3a import class_weights, random_projection, row_weights
from imbcil.harness.losses import asymmetric_loss

NAN = float("nan")


def test_the_asymmetric_loss_is_its_formula_and_passes_no_gradient_through_the_focus():
    logits = torch.tensor([[1.2, -0.4, 2.0, -4.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, NAN, 0.0]])
    cells = asymmetric_loss(logits, targets)
    p = torch.sigmoid(logits.detach().double())[0]
    shifted = p[1] - 0.05
    expected = [
        -math.log(p[0]),
        -float(shifted**4 * (1 - shifted).log()),
        0.0,
        0.0,
    ]  # the last is below the margin
    assert cells[0].tolist() == pytest.approx(expected, rel=1e-5)
    cells.sum().backward()
    assert logits.grad is not None
    slope = float(shifted**4 / (1 - shifted) * p[1] * (1 - p[1]))
    assert logits.grad[0].tolist() == pytest.approx([float(p[0]) - 1, slope, 0, 0], rel=1e-5)


def test_the_threshold_moves_until_the_rate_is_met():
    p = torch.rand(2000, 10, generator=torch.Generator().manual_seed(0))
    for wanted in (0.7, 3.0):
        found = matching_threshold(p, wanted, 0.1, 0.8)
        assert abs(float((p > found).sum(dim=1).float().mean()) - wanted) <= 0.1
    assert matching_threshold(torch.zeros(3, 2), 1.0, 0.1, 0.8) == pytest.approx(0.3)  # 100 steps and no more


def test_tokens_of_older_tasks_do_not_notice_a_new_one():
    torch.manual_seed(0)
    head = KRTHead(6, embed=16)
    head.grow(2)
    maps = [torch.randn(3, 6, 4, 4)]
    before = head(torch.zeros(3, 6), maps)
    head.grow(3)
    after = head(torch.zeros(3, 6), maps)
    assert after["logits"].shape == (3, 5)
    assert torch.allclose(after["logits"][:, :2], before["logits"], atol=1e-6)
    assert torch.allclose(after["tokens"][:, :1], before["tokens"], atol=1e-6)


def test_the_transfer_token_looks_at_itself_one_tasks_token_and_the_patches():
    torch.manual_seed(1)
    head = KRTHead(6, embed=16).double()
    for classes in (2, 3):
        head.grow(classes)
    for value in head.parameters():
        value.data.normal_(std=0.4)
    maps = [torch.randn(2, 6, 7, 7, dtype=torch.float32)]
    found = head.float()(torch.zeros(2, 6), maps)
    head.double()
    patches = (head.patch(maps[0].double()) + head.position).flatten(2).transpose(1, 2)
    logits = []
    for number, task in enumerate(head.blocks):
        own = torch.stack([head.transfer, task.token]).expand(2, -1, -1)
        inside = head.outer(torch.cat([own, patches], dim=1))
        parts = []
        for place in (slice(2 * one, 2 * one + 2) for one in range(8)):  # two numbers a head
            ask = head.asks(inside[:, :1])[:, :, place]
            weight = (ask @ head.shows(inside)[:, :, place].transpose(1, 2) / math.sqrt(2)).softmax(dim=2)
            parts.append(weight @ head.gives(inside)[:, :, place])
        token = head.transfer + head.joins(torch.cat(parts, dim=2))[:, 0]
        token = token + head.mlp(head.inner(token))
        assert torch.allclose(found["tokens"][:, number].double(), token, atol=1e-4)
        logits.append(torch.nn.functional.linear(task.norm(token), task.weight, task.bias))
    assert torch.allclose(found["logits"].double(), torch.cat(logits, dim=1), atol=1e-4)


def test_one_cosine_holds_the_tokens_of_all_old_tasks(tmp_path: Path):
    runner, phase = begun("krt", tmp_path, 2, scenario=tiny_multi_scenario(), settings={"krt.embed": 16})
    learner: Any = runner.learner
    batch = batch_of(runner, phase.new)
    out, old = learner.net(batch.images), learner.state["old"](batch.images).extras["tokens"].flatten(1)
    out.extras["tokens"] = torch.randn(len(old), 3, 16, generator=torch.Generator().manual_seed(2))
    mine = out.extras["tokens"][:, :2].flatten(1).double()
    cosine = (mine * old).sum(dim=1) / mine.norm(dim=1) / old.double().norm(dim=1)
    expected = learner.cfg.retention * math.sqrt(6 / 2) * float((1 - cosine).mean())
    assert float(learner.loss(batch, out)["tokens"].detach()) == pytest.approx(expected, rel=1e-4)


def test_krt_learns_old_columns_from_its_own_labels_and_holds_old_tokens(tmp_path: Path):
    runner, phase = begun("krt", tmp_path, scenario=tiny_multi_scenario(), settings={"krt.embed": 16})
    learner: Any = runner.learner
    batch = batch_of(runner, phase.new)
    assert torch.equal(batch.targets[:, :3], learner.pseudo_targets(batch.images))
    assert bool(batch.mask.all())
    learner.net.eval()
    out = learner.net(batch.images)
    terms = learner.loss(batch, out)
    assert float(terms["asl"].detach()) == pytest.approx(
        float(asymmetric_loss(out.logits, batch.targets).sum().detach()), rel=1e-6
    )
    assert float(terms["tokens"].detach()) == pytest.approx(0, abs=1e-3)  # nothing has moved yet
    runner._run_stage(phase, runner.plugins.stages(phase, learner)[0])
    old, new = learner.state["old"].head.blocks[0], learner.net.head.blocks[0]
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


def test_pseudo_labels_are_measured(tmp_path: Path):
    runner = tiny_runner("krt", tmp_path, scenario=tiny_multi_scenario(), settings={"krt.embed": 16})
    runner.run()
    first, *later = runner.s.folder.records()
    assert "phase/pseudo_negatives" not in first.metrics
    assert all(record.metrics["phase/pseudo_negatives"] > 0 for record in later)


def test_l3a_is_the_ridge_regression_over_all_rows_at_once(tmp_path: Path):
    runner = tiny_runner(
        "l3a", tmp_path, scenario=tiny_multi_scenario(),
        settings={"l3a.width": 40, "l3a.block": 7, "l3a.ridge": 5.0},
    )  # fmt: skip
    learner: Any = runner.learner
    z_parts, y_parts, o_parts = [], [], []
    for index in range(3):
        weights = learner.state.get("ridge")
        runner._run_phase()
        runner.place.phase = index
        phase = runner._phase_view()
        sweep = learner.tools.sweep(phase.new)
        runner.place.phase = index + 1
        z = learner.random_features(sweep.features).double()
        y = torch.zeros(len(z), 6, dtype=torch.float64)
        y[:, : phase.hi] = torch.where(sweep.targets.isnan(), 0.0, sweep.targets).double()
        if weights is not None:
            y[:, : phase.lo] = (z @ weights.double() > math.log(7 / 3)).double()  # sigmoid above 0.7
        inverse = phase.seen_counts.double().rsqrt()
        o_parts.append(row_weights(y[:, : phase.hi], inverse / inverse.mean()))
        z_parts.append(z)
        y_parts.append(y)
    z, y, o = torch.cat(z_parts), torch.cat(y_parts), torch.cat(o_parts).unsqueeze(1)
    once = torch.linalg.solve(z.T @ (o * z) + 5.0 * torch.eye(40, dtype=torch.float64), z.T @ (o * y))
    assert torch.allclose(learner.state["ridge"].double(), once, atol=1e-5)
    assert learner.state["gram"].dtype == torch.float64


def test_row_weights_are_the_mean_over_a_rows_classes():
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert row_weights(labels, torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)).tolist() == [1.0, 3.0, 1.0]


def test_a_class_without_an_image_weighs_nothing_and_leaves_the_others_their_mean():
    assert class_weights(torch.tensor([4.0, 0.0, 16.0])).tolist() == pytest.approx([2.0, 0.0, 1.0])


def test_the_projection_is_drawn_as_a_linear_layer_is():
    drawn = random_projection(48, 500, torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(48, 500, bias=False).weight.detach()
    assert float(drawn.abs().max()) <= 48**-0.5
    assert float(drawn.std()) == pytest.approx((3 * 48) ** -0.5, rel=0.02)
    assert float(drawn.std()) == pytest.approx(float(layer.std()), rel=0.03)


def l3a_labels(store: Path, policy: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the regression says of the new images' old columns, and the labels that it is given for them."""
    runner, phase = begun("l3a", store, scenario=tiny_multi_scenario(), settings={"labels.policy": policy})
    learner: Any = runner.learner
    learner.state["ridge"] = 4.0 * torch.ones_like(learner.state["ridge"]) / learner.cfg.width
    sweep = learner.tools.sweep(phase.new)
    z = learner.random_features(sweep.features).double()
    z = z * (torch.linspace(0.5, 2.0, len(z), dtype=torch.float64) / z.mean(dim=1) / 4).unsqueeze(1)
    outputs = z @ learner.state["ridge"].double()
    return outputs[:, : phase.lo], learner.targets(sweep.targets, z, phase.lo)[:, : phase.lo]


def test_l3as_pseudo_labels_are_outputs_whose_sigmoid_exceeds_the_threshold(tmp_path: Path):
    outputs, labels = l3a_labels(tmp_path, "pseudo_old")
    between = (outputs > 0.7) & (outputs < math.log(7 / 3))
    assert bool(between.any()) and not labels[between].any()
    assert torch.equal(labels == 1, outputs > math.log(7 / 3)) and bool(labels.any())


@pytest.mark.parametrize("policy", ["mask_current", "assume_negative"])
def test_l3a_makes_pseudo_labels_only_where_the_policy_asks_for_them(policy: str, tmp_path: Path):
    outputs, labels = l3a_labels(tmp_path, policy)
    assert bool((outputs > 1).any()) and not labels.any()


def test_l3a_scores_rise_with_the_regression_and_cross_zero_at_one_half(tmp_path: Path):
    runner, _ = begun("l3a", tmp_path, scenario=tiny_multi_scenario())
    learner: Any = runner.learner
    y = torch.tensor([[-0.5, 0.0005, 0.2, 0.5, 0.8, 1.4]])
    object.__setattr__(learner, "outputs", lambda images: y)
    scores = learner.scores(torch.zeros(1, 3, 8, 8))["ridge"][0]
    assert bool((scores.diff() > 0).all())
    assert float(scores[3]) == pytest.approx(0, abs=1e-6)
    assert float(scores[4]) == pytest.approx(math.log(4), rel=1e-5)  # sigmoid 0.8


def test_l3a_trains_nothing_after_the_base_phase(tmp_path: Path):
    runner, phase = begun("l3a", tmp_path, scenario=tiny_multi_scenario())
    assert runner.plugins.stages(phase, runner.learner) == []
    runner.place.point = "stages"
    runner._run_phase()
    assert all(np.isfinite(scores).all() for scores in all_scores(runner.s.folder).values())
