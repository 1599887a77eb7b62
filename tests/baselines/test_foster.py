"""FOSTER: weights by count, balanced distillation, what boosting trains and compression starts from."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from tiny import tiny_runner

from imbcil.baselines.foster import balanced_distillation, count_weights
from imbcil.harness.contract import Phase
from imbcil.harness.losses import knowledge_distillation
from imbcil.harness.memory import Memory
from imbcil.harness.network.heads import build_head
from imbcil.harness.network.network import freeze


def test_weights_sum_to_the_number_of_classes_and_are_one_for_equal_counts() -> None:
    weights = count_weights(torch.tensor([500.0, 20.0, 3.0, 0.0]), 0.97)
    assert float(weights.sum()) == pytest.approx(4, abs=1e-5)
    assert torch.allclose(count_weights(torch.full((7,), 20.0), 0.97), torch.ones(7), atol=1e-6)
    assert torch.equal(count_weights(torch.tensor([5.0, 500.0]), 0.0), torch.ones(2))


def test_weights_of_the_long_tailed_profile_saturate_by_a_hundred_images() -> None:
    profile = torch.tensor([float(int(500 * 0.01 ** (c / 99))) for c in range(100)], dtype=torch.float64)
    weights = count_weights(profile, 0.97)
    by_count = dict(zip(profile.tolist(), weights.tolist(), strict=True))
    near = min(by_count, key=lambda n: abs(n - 98))
    assert by_count[500] == pytest.approx(0.46, abs=0.006)
    assert by_count[near] == pytest.approx(0.49, abs=0.006)
    assert by_count[5] == pytest.approx(3.27, abs=0.006)


def test_weights_are_one_over_the_effective_number() -> None:
    counts = [4.0, 9.0, 1.0]
    raw = [(1 - 0.9) / (1 - 0.9**n) for n in counts]
    expected = [3 * value / sum(raw) for value in raw]
    assert count_weights(torch.tensor(counts, dtype=torch.float64), 0.9).tolist() == pytest.approx(expected)


def test_balanced_distillation_follows_the_weighted_and_renormalised_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    teacher = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        share = [w * math.exp(v / 2) for w, v in zip(weights.tolist(), t, strict=True)]
        log_sum = math.log(sum(math.exp(v / 2) for v in s))
        total -= sum(q / sum(share) * (v / 2 - log_sum) for q, v in zip(share, s, strict=True))
    assert float(balanced_distillation(student, teacher, weights, 2.0)) == pytest.approx(total / 2, abs=1e-12)


def test_balanced_distillation_with_equal_weights_is_plain_distillation() -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    plain = knowledge_distillation(student, teacher, 2.0)
    assert float(balanced_distillation(student, teacher, torch.ones(5), 2.0)) == pytest.approx(float(plain))


def boosting() -> tuple[Any, Any]:
    learner, batch = bare("foster", 3), a_batch([0, 1, 3, 4], 5, counts=[4, 4, 2, 20, 9])
    learner.state["old"] = freeze(learner.net)
    learner.net.add_backbone(aux=5)
    learner.net.grow(2)
    learner.net.backbones[0].eval()  # as the harness has frozen parts
    return learner, batch


def test_boosting_divides_logits_by_the_weights_in_the_cross_entropy_alone() -> None:
    learner, batch = boosting()
    out = learner.net(batch.images)
    terms = learner.loss(batch, out)
    raw = [(1 - 0.96) / (1 - 0.96**n) for n in batch.counts.tolist()]
    weights = torch.tensor([5 * value / sum(raw) for value in raw])
    ce = torch.nn.functional.cross_entropy(out.logits / weights, batch.targets)
    aux = torch.nn.functional.cross_entropy(out.extras["aux"], batch.targets)
    old = learner.state["old"](batch.images).logits
    assert terms["ce"].item() == pytest.approx(ce.item(), rel=1e-5)
    assert terms["aux"].item() == pytest.approx(aux.item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(
        knowledge_distillation(out.logits[:, :3], old).item(), rel=1e-5
    )


def test_boosting_asks_the_old_model_without_running_its_backbone_again(tmp_path: Path) -> None:
    runner = tiny_runner("foster", tmp_path)
    learner, found = runner.learner, []
    original = learner.old_logits  # type: ignore[attr-defined]

    def watched(batch: Any, out: Any) -> Any:
        calls: list[int] = []
        if "old" in learner.state:
            backbone = learner.state["old"].backbones[0]
            hook = backbone.register_forward_hook(lambda *_: calls.append(1))
            terms = type(learner).loss(learner, batch, out)
            hook.remove()
            found.append((len(calls), torch.equal(original(out), learner.teacher_logits(batch))))
            return terms
        return type(learner).loss(learner, batch, out)

    object.__setattr__(learner, "loss", watched)
    runner.run()
    assert found and set(found) == {(0, True)}


def test_the_second_backbone_starts_as_the_first_and_old_rows_keep_their_old_columns() -> None:
    learner, _ = boosting()
    first, second = (part.state_dict() for part in learner.net.backbones)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    old = learner.state["old"].head.weight
    assert torch.equal(learner.net.head.weight[:3, : old.shape[1]], old)
    assert learner.net.head.weight.shape == (5, 2 * old.shape[1])


def test_beta1_is_taken_by_phase_and_its_last_value_stays() -> None:
    learner, batch = boosting()

    def ce(*beta1: float) -> float:
        object.__setattr__(learner, "cfg", learner.cfg.model_copy(update={"beta1": beta1}))
        return float(learner.loss(batch, learner.net.eval()(batch.images))["ce"].detach())

    assert ce(0.5) == ce(0.5, 0.9)
    assert ce(0.5) != ce(0.9)
    learner.net.grow(1)
    batch.counts = torch.cat([batch.counts, torch.tensor([3.0])])
    assert ce(0.5) == ce(0.9, 0.5)


@pytest.mark.parametrize(
    ("splits", "value"),
    [((50, 10), 0.94), ((50, 5, 5), 0.94), ((5, 5), 0.96), ((5, 5, 5), 0.96), ((10, 10), 0.98), ((10, 10, 10), 0.975),
     ((10,) * 12, 0.94), ((20, 20), 0.97), ((20,) * 5, 0.94), ((3, 2), 0.96)],
)  # fmt: skip
def test_beta1_is_by_default_what_the_authors_have_for_the_protocol(
    splits: tuple[int, ...], value: float, tmp_path: Path
) -> None:
    learner = tiny_runner("foster", tmp_path).learner
    learner.state["net"] = SimpleNamespace(head=build_head("linear", 4, {}))
    for classes in splits:
        learner.net.head.grow(classes)
    assert learner.beta1() == value


def test_boosting_leaves_the_old_backbone_alone_and_compression_starts_from_the_old_network(
    tmp_path: Path,
) -> None:
    runner = tiny_runner("foster", tmp_path)
    original, learner, seen = runner._run_stage, runner.learner, []

    def watched(phase: Phase, stage: Any) -> None:
        if stage.name == "boost":
            before = {name: value.clone() for name, value in learner.net.backbones[0].state_dict().items()}
        if stage.name == "compress":
            learner.start_compression()  # what `begin` will do once more, from the same networks
            images = torch.randn(4, 3, 8, 8)
            student, old = learner.net.eval(), learner.state["old"]
            assert torch.allclose(student(images).logits[:, : phase.lo], old(images).logits, atol=1e-6)
            learner.state["net"] = learner.state["boosted"]
            assert (stage.optim.epochs, stage.optim.weight_decay) == (2, 0.0)
        original(phase, stage)
        if stage.name == "boost":
            after = learner.net.backbones[0].state_dict()
            assert all(torch.equal(value, after[name]) for name, value in before.items())
        seen.append(stage.name)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert seen == ["train", "boost", "compress", "boost", "compress"]
    assert len(learner.net.backbones) == 1 and len(learner.state["boosted"].backbones) == 2


def test_exemplars_are_herded_on_the_concatenated_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths, original = [], Memory.update

    def watched(self: Memory, pool: Any, features: torch.Tensor, *rest: Any, **extras: Any) -> torch.Tensor:
        widths.append(features.shape[1])
        return original(self, pool, features, *rest, **extras)

    monkeypatch.setattr(Memory, "update", watched)
    tiny_runner("foster", tmp_path).run()
    assert widths == [16, 32, 32]


def test_both_predictors_are_stored_and_agree_before_anything_was_boosted(tmp_path: Path) -> None:
    runner = tiny_runner("foster", tmp_path)
    runner.run()
    first, last = runner.s.folder.load_scores(0), runner.s.folder.load_scores(2)
    assert (first["test/fc"] == first["test/fc_boosted"]).all()
    assert (last["test/fc"] != last["test/fc_boosted"]).any()
