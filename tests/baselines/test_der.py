"""DER: what grows, what rests, the auxiliary labels, and the alignment of new rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from tiny import tiny_runner

from imbcil.harness.contract import Phase
from imbcil.harness.expansion import old_or_new


def test_the_auxiliary_head_sees_old_classes_as_one() -> None:
    learner, batch = bare("der", 3), a_batch([0, 2, 3, 4], 5)
    learner.net.add_backbone(aux=3)
    learner.net.grow(2)
    out = learner.net(batch.images)
    expected = torch.nn.functional.cross_entropy(out.extras["aux"].double(), torch.tensor([0, 0, 1, 2]))
    assert old_or_new(batch, out)["aux"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert learner.loss(batch, out)["aux"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_there_is_no_auxiliary_term_in_the_first_phase() -> None:
    learner, batch = bare("der", 3), a_batch([0, 1, 2], 3)
    assert set(learner.loss(batch, learner.net(batch.images))) == {"ce"}


def test_the_auxiliary_head_reads_the_newest_features_alone() -> None:
    learner, batch = bare("der", 3), a_batch([0, 2, 3, 4], 5)
    learner.net.add_backbone(aux=3)
    learner.net.grow(2)
    old_or_new(batch, learner.net(batch.images))["aux"].backward()
    assert all(value.grad is None for value in learner.net.backbones[0].parameters())
    assert all(value.grad is not None for value in learner.net.backbones[1].parameters())


def test_older_backbones_rest_with_their_statistics_and_one_comes_each_phase(tmp_path: Path) -> None:
    runner = tiny_runner("der", tmp_path)
    learner, original, widths = runner.learner, runner._run_stage, []

    def watched(phase: Phase, stage: Any) -> None:
        parts = list(learner.net.backbones)
        before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
        original(phase, stage)
        for old, part in zip(before[:-1], parts[:-1], strict=True):
            assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())
        assert any(not torch.equal(v, before[-1][n]) for n, v in parts[-1].state_dict().items())
        widths.append(learner.net.head.weight.shape)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert [tuple(shape) for shape in widths] == [(3, 16), (4, 32), (6, 48)]


def test_the_new_backbone_starts_from_the_newest_one() -> None:
    net = bare("der", 3).net
    net.add_backbone(aux=2)
    first, second = (part.state_dict() for part in net.backbones)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_alignment_makes_the_mean_norms_equal_and_a_second_one_changes_nothing() -> None:
    head = bare("der", 3, 2).net.head
    with torch.no_grad():
        head.blocks[-1].weight.mul_(4)
    bias = head.blocks[-1].bias.detach().clone()
    old, new = head.weight[:3].detach().double().norm(dim=1), head.weight[3:].detach().double().norm(dim=1)
    assert head.align_newest().item() == pytest.approx((old.mean() / new.mean()).item(), rel=1e-6)
    assert head.weight[3:].norm(dim=1).mean().item() == pytest.approx(old.mean().item(), rel=1e-6)
    assert torch.equal(head.blocks[-1].bias, bias)
    assert head.align_newest().item() == pytest.approx(1, rel=1e-6)
    assert bare("der", 3).net.head.align_newest().item() == 1


@pytest.mark.parametrize("classifier", ["align", "none"])
def test_the_norms_are_equal_at_the_end_of_a_phase_only_if_aligned(classifier: str, tmp_path: Path) -> None:
    runner = tiny_runner("der", tmp_path, settings={"der.classifier": classifier})
    runner.run()
    norms = runner.learner.net.head.row_norms()
    equal = norms[:4].mean().item() == pytest.approx(norms[4:].mean().item(), rel=1e-5)
    assert equal is (classifier == "align")


def test_retraining_draws_the_head_anew_and_softens_its_logits(tmp_path: Path) -> None:
    learner, batch = bare("der", 3), a_batch([0, 1, 2], 3)
    out = learner.net(batch.images)
    expected = torch.nn.functional.cross_entropy(out.logits / 5, batch.targets)
    assert learner.softened(batch, out)["ce"].item() == pytest.approx(expected.item(), rel=1e-6)
    runner = tiny_runner("der", tmp_path, settings={"der.classifier": "retrain"})
    seen, original = [], runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        before = {name: value.clone() for name, value in runner.learner.net.state_dict().items()}
        original(phase, stage)
        seen.append(stage.name)
        if stage.name == "classifier":
            after = runner.learner.net.state_dict()
            assert all(
                torch.equal(value, after[name]) is not name.startswith("head.")
                for name, value in before.items()
            )

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert seen == ["train", "train", "classifier", "train", "classifier"]


def test_retraining_without_a_memory_leaves_the_trained_head(tmp_path: Path) -> None:
    runner = tiny_runner("der", tmp_path, memory="0", settings={"der.classifier": "retrain"})
    seen, original = [], runner._run_stage
    runner._run_stage = lambda phase, stage: (seen.append(stage.name), original(phase, stage))[1]  # type: ignore[method-assign]
    runner.run()
    assert seen == ["train"] * 3
