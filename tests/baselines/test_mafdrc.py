"""MAFDRC: arithmetic of the branches, the fused loss term by term, and what each stage trains."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from tiny import tiny_runner

from imbcil.baselines.mafdrc import branch_loss, log_share
from imbcil.harness.contract import Phase
from imbcil.harness.losses import knowledge_distillation, pod_spatial
from imbcil.harness.network.heads import BranchHead
from imbcil.harness.network.network import freeze


def drawn_head() -> BranchHead:
    torch.manual_seed(0)
    head = BranchHead(4)
    head.grow(3)
    for value in head.parameters():
        torch.nn.init.normal_(value)
    return head


def test_branches_are_batch_norm_then_average_then_the_shared_layer() -> None:
    head, last = drawn_head(), torch.randn(5, 4, 2, 2)
    head.gate.fill_(1.0)
    out = head.train()(torch.empty(5, 4), [last])
    values = last.double()
    mean = values.mean(dim=(0, 2, 3), keepdim=True)
    std = (values.var(dim=(0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    normal = ((values - mean) / std).mean(dim=(2, 3))
    logits = {}
    for name, branch in (("old", head.old_branch), ("new", head.new_branch)):
        pooled = normal * branch.weight.double() + branch.bias.double()
        logits[name] = pooled @ head.weight.double().T + head.bias.double()
        assert torch.allclose(out[name].double(), logits[name], atol=1e-5)
    assert torch.allclose(out["logits"].double(), logits["old"] + logits["new"], atol=1e-5)


def test_the_first_phase_answers_with_the_new_branch_while_the_old_one_follows_its_statistics() -> None:
    head, last = drawn_head(), 3 + torch.randn(5, 4, 2, 2)
    out = head.train()(torch.empty(5, 4), [last])
    assert torch.equal(out["logits"], out["new"])
    assert bool((head.old_branch.running_mean > 0.1).all())


def test_merging_copies_first_and_averages_later_and_leaves_statistics() -> None:
    head = drawn_head()
    head.train()(torch.empty(5, 4), [torch.randn(5, 4, 2, 2)])
    head.new_branch.running_mean.fill_(9.0)
    statistics = head.old_branch.running_mean.clone()
    head.merge()
    assert torch.equal(head.old_branch.weight, head.new_branch.weight)
    assert torch.equal(head.old_branch.bias, head.new_branch.bias)
    with torch.no_grad():
        head.new_branch.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        head.old_branch.weight.copy_(torch.tensor([3.0, 2.0, 5.0, 0.0]))
    head.merge()
    assert head.old_branch.weight.tolist() == [2.0, 2.0, 4.0, 2.0]
    assert head.new_branch.weight.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert torch.equal(head.old_branch.running_mean, statistics)


def test_the_branches_own_loss_is_over_old_samples_once_and_all_samples_once() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    new = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    targets = [0, 3, 2, 4]

    def entropy(row: list[float], label: int) -> float:
        return math.log(sum(math.exp(value) for value in row)) - row[label]

    total = sum(entropy(row, label) for row, label in zip(old.tolist(), targets, strict=True) if label < 3)
    total += sum(entropy(row, label) for row, label in zip(new.tolist(), targets, strict=True))
    value = branch_loss(old, new, torch.tensor(targets), 3)
    assert float(value) == pytest.approx(total / (2 + 4), abs=1e-12)


def fusing(**settings: Any) -> tuple[Any, Any]:
    learner = bare("mafdrc", 4, **settings)
    learner.state["old"] = freeze(bare("mafdrc", 4, seed=5).net)
    learner.net.head.merge()
    learner.net.grow(2)
    adapted = bare("mafdrc", 4, 2, seed=6).net
    adapted.head.merge()
    learner.state["adapted"] = freeze(adapted)
    return learner, a_batch([0, 3, 4, 5], 6, counts=[4, 4, 4, 0, 20, 2])


def test_the_fused_loss_is_the_one_on_the_card_term_by_term() -> None:
    learner, batch = fusing()
    out = learner.net(batch.images)
    terms = learner.fusion(batch, out)
    counts = [4, 4, 4, 1, 20, 2]
    prior = torch.tensor([1.2 * math.log(n / sum(counts)) for n in counts])
    adjusted = out.logits + prior
    old, adapted = (learner.state[name](batch.images) for name in ("old", "adapted"))
    expected = {
        "branches": 0.2 * branch_loss(out.extras["old"], out.extras["new"], batch.targets, 4),
        "ce": 0.8 * torch.nn.functional.cross_entropy(adjusted, batch.targets),
        "kd_old": 4 * knowledge_distillation(adjusted[:, :4], old.logits),
        "kd_new": knowledge_distillation(adjusted[:, 4:], adapted.logits[:, 4:]),
        "pod": 5 * math.sqrt(6 / 2) * pod_spatial(out.maps, old.maps),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_adaptation_is_cross_entropy_among_the_new_classes() -> None:
    learner, batch = fusing()[0], a_batch([4, 5, 5], 6)
    out = learner.net(batch.images)
    value = learner.adaptation(batch, out)["ce"]
    expected = torch.nn.functional.cross_entropy(out.logits[:, 4:], batch.targets - 4)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    assert not learner.net.head.blocks[0].weight.grad.any()


@pytest.mark.parametrize(
    ("when", "sizes", "distils"),
    [
        ("half-base", (50, 10, 10), True),
        ("half-base", (34, 33, 33), False),
        ("always", (10, 10), True),
        ("never", (50, 10), False),
    ],
)
def test_maps_are_distilled_after_a_half_base_or_as_told(
    when: str, sizes: tuple[int, ...], distils: bool
) -> None:
    assert bare("mafdrc", *sizes, pod_when=when).distils_maps() is distils


def test_the_prior_is_the_log_share_and_scores_are_unadjusted() -> None:
    assert log_share(torch.tensor([3.0, 1.0])).tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    learner, batch = fusing()
    learner.net.eval()
    assert torch.equal(learner.scores(batch.images)["fc"], learner.net(batch.images).logits)


def test_stages_train_all_but_the_old_branch_whose_statistics_move_and_adapt_sees_new_data_alone(
    tmp_path: Path,
) -> None:
    runner = tiny_runner("mafdrc", tmp_path)
    learner, original, seen = runner.learner, runner._run_stage, []

    def watched(phase: Phase, stage: Any) -> None:
        branch = learner.net.head.old_branch
        affine, statistics = branch.weight.clone(), branch.running_mean.clone()
        adapted = learner.net.state_dict()["backbones.0.conv1.weight"].clone()
        original(phase, stage)
        branch = learner.net.head.old_branch
        assert torch.equal(affine, branch.weight) and not torch.equal(statistics, branch.running_mean)
        if stage.name == "fuse":
            assert torch.equal(adapted, learner.state["adapted"].state_dict()["backbones.0.conv1.weight"])
        if stage.name == "adapt":
            assert bool((stage.pool.slot < 0).all())
        seen.append((stage.name, stage.optim.epochs, stage.optim.weight_decay))

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert seen == [("train", 2, 5e-4)] + [("adapt", 1, 5e-4), ("fuse", 1, 0.0)] * 2
    assert "adapted" not in learner.state


@pytest.mark.parametrize(("preset", "gate"), [("released", 1.0), ("sound", 0.0)])
def test_the_first_teachers_untrained_branch_speaks_only_in_the_released_form(
    preset: str, gate: float, tmp_path: Path
) -> None:
    runner = tiny_runner("mafdrc", tmp_path, preset=preset)
    gates, original = [], runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        if stage.name == "fuse":
            gates.append(runner.learner.state["old"].head.gate.item())
        original(phase, stage)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert gates == [gate, 1.0]
