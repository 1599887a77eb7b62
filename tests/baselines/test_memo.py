"""MEMO: one shared stem, one last stage a phase, and which of them learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from tiny import tiny_runner

from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Phase
from imbcil.harness.network.backbones import build_backbone, can_be_cut, kinds


@pytest.mark.parametrize("kind", [*filter(can_be_cut, kinds())])
def test_stem_and_tail_together_are_the_whole_backbone(kind: str) -> None:
    torch.manual_seed(0)
    whole = build_backbone(kind).eval()
    stem, tail = build_backbone(kind, part="stem").eval(), build_backbone(kind, part="tail").eval()
    names = whole.state_dict()
    assert {*stem.state_dict(), *tail.state_dict()} == set(names)
    assert not set(stem.state_dict()) & set(tail.state_dict())
    for part in (stem, tail):
        part.load_state_dict({name: names[name] for name in part.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, first = whole(images), stem(images)
        second = tail(first["x"])
    assert torch.equal(second["features"], expected["features"])
    got = [*first["maps"], *second["maps"]]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, expected["maps"], strict=True))
    assert first["x"].shape[1] == stem.dim and second["features"].shape[1] == tail.dim == whole.dim


def test_a_transformer_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"vit_tiny has none; use a ResNet"):
        tiny_runner("memo", tmp_path, settings={"backbone.name": "vit_tiny"}).run()


def test_parts_are_the_recipes_backbone_with_its_options() -> None:
    net = bare("memo", 3).net
    assert {name.split(".")[0] for name, _ in net.trunk.named_parameters()} == {
        "conv1", "bn1", "layer1", "layer2",
    }  # fmt: skip
    assert {name.split(".")[0] for name, _ in net.backbones[0].named_parameters()} == {"layer3"}


def test_each_phase_adds_a_last_stage_and_an_auxiliary_head_of_its_own() -> None:
    learner, first = bare("memo", 3), a_batch([0, 1, 2], 3)
    assert set(learner.loss(first, learner.net(first.images))) == {"ce"}
    batch = a_batch([0, 2, 3, 4], 5)
    learner.net.add_backbone(aux=3)
    learner.net.grow(2)
    out = learner.net(batch.images)
    expected = torch.nn.functional.cross_entropy(out.extras["aux"], torch.tensor([0, 0, 1, 2]))
    assert learner.loss(batch, out)["aux"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert out.features.shape[1] == 32 and learner.net.aux.out_features == 3


@pytest.mark.parametrize("shared", [True, False])
def test_older_last_stages_rest_and_shared_stages_learn_as_told(shared: bool, tmp_path: Path) -> None:
    runner = tiny_runner("memo", tmp_path, settings={"memo.train_shared": shared})
    learner, original, seen = runner.learner, runner._run_stage, []

    def watched(phase: Phase, stage: Any) -> None:
        net = learner.net
        before = {name: value.clone() for name, value in net.state_dict().items()}
        original(phase, stage)
        moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        parts = {".".join(name.split(".")[:2]) for name in moved if name.startswith("backbones.")}
        assert parts == {f"backbones.{phase.index}"}
        trunk = any(name.startswith("trunk.") for name in moved)
        assert trunk is (shared or phase.index == 0)
        seen.append(phase.index)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert seen == [0, 1, 2]
    norms = learner.net.head.row_norms()
    assert norms[:4].mean().item() == pytest.approx(norms[4:].mean().item(), rel=1e-5)
