"""BiC: the split, the correction (identity at first, one per task), its stage, and what the settings change."""

from pathlib import Path

import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_runner
from torch import Tensor

from imbcil.harness.base.errors import BadInput
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner


def finished(store: Path, **settings: object) -> Runner:
    runner = tiny_runner("bic", store, settings={f"bic.{name}": value for name, value in settings.items()})
    runner.run()
    return runner


def vectors(runner: Runner) -> tuple[Tensor, Tensor]:
    return runner.learner.net.calibrator("bic").vectors()


def test_a_new_correction_changes_no_score(tmp_path: Path) -> None:
    runner, phase = begun("bic", tmp_path)
    a, b = vectors(runner)
    assert torch.equal(a, torch.ones(4)) and torch.equal(b, torch.zeros(4))
    out = runner.learner.net(batch_of(runner, phase.new).images)
    assert torch.equal(runner.learner.net.calibrated(out, "test"), out.logits)


def test_two_of_twenty_rows_are_held_out_but_never_more_than_half_of_a_class(tmp_path: Path) -> None:
    runner, phase = begun("bic", tmp_path, memory="20/class")
    sizes = {0: 20, 1: 3, 2: 4, 3: 1, 4: 2, 5: 40}

    def rows(classes: range, slots: bool) -> Pool:
        quota = torch.cat([torch.full((sizes[c],), c) for c in classes])
        index = torch.arange(len(quota))
        return Pool(index, quota, index if slots else torch.full_like(index, -1))

    object.__setattr__(phase, "memory", rows(range(3), True))
    object.__setattr__(phase, "new", rows(range(3, 6), False))
    train, held = runner.learner.split(phase)
    assert held.counts(6).tolist() == [2, 1, 2, 0, 1, 2]
    assert (train.counts(6) + held.counts(6)).tolist() == list(sizes.values())
    assert not set(train[train.slot < 0].index.tolist()) & set(held[held.slot < 0].index.tolist())
    again = runner.learner.split(phase)[1]
    assert torch.equal(again.index, held.index)


def test_held_out_rows_are_kept_from_the_first_stage_and_are_all_of_the_second(tmp_path: Path) -> None:
    runner, phase = begun("bic", tmp_path)
    train, bias = runner.learner.stages(phase)
    rows = {(int(i), int(s)) for i, s in zip(train.pool.index, train.pool.slot, strict=True)}
    held = {(int(i), int(s)) for i, s in zip(bias.pool.index, bias.pool.slot, strict=True)}
    assert held and not rows & held and len(rows | held) == len(phase.memory) + len(phase.new)


def test_the_second_stage_moves_the_newest_pair_alone_and_leaves_the_network_in_evaluation_mode(
    tmp_path: Path,
) -> None:
    runner, phase = begun("bic", tmp_path, phase=2, settings={"bic.bias_epochs": 3})
    learner = runner.learner
    before = {name: value.clone() for name, value in learner.net.state_dict().items()}
    modes: list[bool] = []
    original = type(learner).bias_loss
    object.__setattr__(
        learner,
        "bias_loss",
        lambda batch, out: (
            modes.extend(m.training for n, m in learner.net.backbones.named_modules() if "bn" in n)
            or original(learner, batch, out)
        ),
    )
    runner._run_stage(phase, runner.plugins.stages(phase, learner)[1])
    moved = {name for name, value in learner.net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"calibrators.bic.blocks.2.a", "calibrators.bic.blocks.2.b"}
    assert modes and not any(modes)


def test_the_correction_is_trained_with_one_softmax_and_a_penalty_on_beta(tmp_path: Path) -> None:
    runner, phase = begun("bic", tmp_path)
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    z = torch.randn(len(batch.targets), 4, generator=torch.Generator().manual_seed(3))
    learner.net.calibrator("bic").set(torch.tensor([1, 1, 1, 0.5]), torch.tensor([0, 0, 0, -0.8]))
    terms = learner.bias_loss(batch, outputs(z))
    corrected = z.double()
    corrected[:, 3] = 0.5 * corrected[:, 3] - 0.8
    ce = -corrected.log_softmax(1)[torch.arange(len(z)), batch.targets].mean()
    assert float(terms["bias_ce"]) == pytest.approx(float(ce), rel=1e-5)
    assert float(terms["beta"]) == pytest.approx(0.1 * 0.8**2 / 2)


@pytest.mark.parametrize("plugin", ["two_stage", "tau_norm"])
@pytest.mark.parametrize("corrections", ["per_task", "latest"])
def test_the_correction_is_fitted_to_the_networks_own_scores_beside_a_plug_in_that_changes_them(
    plugin: str, corrections: str, tmp_path: Path
) -> None:
    runner, phase = begun(
        f"bic+{plugin}", tmp_path, phase=2, memory="4/class", settings={"bic.corrections": corrections}
    )
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    z = torch.randn(len(batch.targets), 6, generator=torch.Generator().manual_seed(3))
    name = "lws" if plugin == "two_stage" else plugin
    learner.net.calibrator(name).set(a=torch.tensor([0.2, 3.0, 1.0, 5.0, 1.0, 1.0]))
    a, b = (vector.detach().double() for vector in vectors(runner))
    corrected = a * z.double() + b
    expected = -corrected.log_softmax(1)[torch.arange(len(z)), batch.targets].mean()
    assert float(learner.bias_loss(batch, outputs(z))["bias_ce"]) == pytest.approx(float(expected), rel=1e-5)


def test_per_task_corrections_reach_student_and_teacher_and_are_kept(tmp_path: Path) -> None:
    runner, phase = begun("bic", tmp_path, phase=2)
    learner, batch = runner.learner, batch_of(runner, phase.new)
    learner.net.calibrator("bic").set(torch.full((6,), 0.5), torch.full((6,), 1.0))
    seen: list[Tensor] = []
    object.__setattr__(
        learner, "classify", lambda batch, logits, classes=None: seen.append(logits) or logits.sum(1)
    )
    learner.loss(batch, outputs(torch.ones(len(batch.targets), 6)))
    assert torch.equal(seen[0], torch.full((len(batch.targets), 6), 1.5))
    teacher = learner.state["old"]
    teacher.calibrator("bic").set(torch.full((4,), 0.0), torch.full((4,), 7.0))
    assert torch.equal(learner.teacher_logits(batch), torch.full((len(batch.targets), 4), 7.0))


def test_only_the_latest_correction_exists_in_the_authors_variant(tmp_path: Path) -> None:
    runner, _ = begun("bic", tmp_path, phase=2, settings={"bic.corrections": "latest"})
    a, b = vectors(runner)
    assert torch.equal(a, torch.ones(6)) and torch.equal(b, torch.zeros(6))
    kept = runner.learner.state["old"].calibrator("bic").vectors()[1]
    assert not kept[:3].any() and kept[3] != 0
    out = outputs(torch.zeros(1, 6))
    runner.learner.net.calibrator("bic").set(b=torch.ones(6))
    assert not runner.learner.net.calibrated(out, "train").any()
    assert runner.learner.net.calibrated(out, "test").all()


def test_alpha_and_beta_are_logged_and_presets_decide_the_epochs_of_the_second_stage(tmp_path: Path) -> None:
    runner = finished(tmp_path / "a", bias_epochs=20)
    last = runner.s.folder.records()[-1].metrics
    assert last["phase/bic/alpha"] == pytest.approx(float(vectors(runner)[0][-1]))
    assert last["phase/bic/beta"] != 0
    for preset, epochs in (("released", 200), ("sound", 2)):
        stages = begun("bic", tmp_path / preset, preset=preset)
        assert stages[0].learner.stages(stages[1])[1].optim.epochs == epochs


def test_bic_without_memory_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bic needs an exemplar memory, and --memory 0 leaves none"):
        tiny_runner("bic", tmp_path, memory="0")
