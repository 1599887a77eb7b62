"""SS-IL: no gradient crosses between old and new slices, both normalisations, batches and their last one."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from steps import batch_of, begun, outputs
from tiny import tiny_runner
from torch import Tensor

from imbcil.harness.base.errors import BadInput
from imbcil.harness.batch import Batch

SEPARATE = {"ssil.normalisation": "separate"}


def fixed(learner: object, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Student and teacher logits of six and four classes."""
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(len(batch.targets), 6, generator=generator)
    taught = torch.randn(len(batch.targets), 4, generator=generator)
    monkeypatch.setattr(type(learner), "teacher_logits", lambda self, batch: taught)
    return z, taught


@pytest.mark.parametrize("settings", [{}, SEPARATE])
def test_no_gradient_crosses_between_old_and_new_slices(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("ssil", tmp_path, phase=2, settings={**settings, "ssil.distillation": 0})
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    z, _ = fixed(learner, batch, monkeypatch)
    z.requires_grad_()
    torch.stack(list(learner.loss(batch, outputs(z)).values())).sum().backward()
    new = batch.stream == 0
    assert not z.grad[new][:, :4].any() and not z.grad[~new][:, 4:].any()
    assert z.grad[new][:, 4:].abs().sum() > 0 and z.grad[~new][:, :4].abs().sum() > 0


@pytest.mark.parametrize(("settings", "squared"), [({}, 4.0), (SEPARATE, 1.0)])
def test_the_terms_are_those_of_the_authors_or_of_the_port(
    settings: dict[str, str], squared: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("ssil", tmp_path, phase=2, settings=settings)
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    z, taught = fixed(learner, batch, monkeypatch)
    terms = {name: float(value) for name, value in learner.loss(batch, outputs(z)).items()}
    new, exact, y = batch.stream == 0, z.double(), batch.targets
    n_new, n_old = int(new.sum()), int((~new).sum())
    divisors = (n_new, n_old) if settings else (n_new + n_old, n_new + n_old)
    ce_new = -sum(float(row[4:].log_softmax(0)[t - 4]) for row, t in zip(exact[new], y[new], strict=True))
    ce_old = -sum(float(row[:4].log_softmax(0)[t]) for row, t in zip(exact[~new], y[~new], strict=True))
    kd = -((taught[:, :3].double() / 2).softmax(1) * (exact[:, :3] / 2).log_softmax(1)).sum(1).mean()
    assert terms["ce_new"] == pytest.approx(ce_new / divisors[0], rel=1e-5)
    assert terms["ce_old"] == pytest.approx(ce_old / divisors[1], rel=1e-5)
    assert terms["kd"] == pytest.approx(squared * float(kd), rel=1e-5)  # the second task has one class: zero


def test_class_weights_of_a_plug_in_are_scaled_over_the_rows_that_compete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("ssil+class_balanced_loss", tmp_path, phase=2, settings=SEPARATE)
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    z, _ = fixed(learner, batch, monkeypatch)
    found = learner.loss(batch, outputs(z))
    for name, rows, classes in (
        ("ce_new", batch.stream == 0, slice(4, 6)), ("ce_old", batch.stream == 1, slice(0, 4))
    ):  # fmt: skip
        weights = 1e-4 / (1 - 0.9999 ** batch.counts[classes].double())
        wanted = F.cross_entropy(
            z[rows, classes].double(), batch.targets[rows] - classes.start, weight=weights
        )
        assert float(found[name]) == pytest.approx(float(wanted), rel=1e-5)


def test_a_batch_holds_new_images_and_exemplars_in_the_wanted_ratio(tmp_path: Path) -> None:
    runner, phase = begun("ssil", tmp_path, phase=2)
    stage = runner.learner.stages(phase)[0]
    plan = stage.sampler.plan(stage.pool, 4, torch.Generator().manual_seed(0))
    assert sum(int((rows.stream == 0).sum()) for rows in plan) == len(phase.new)
    assert [int((rows.stream == 1).sum()) for rows in plan] == [1] * len(plan)
    for rows in plan:
        assert torch.equal(stage.pool.slot[rows.rows] >= 0, rows.stream == 1)


def test_released_drops_the_last_partial_batch_after_the_first_phase_and_sound_keeps_it(
    tmp_path: Path,
) -> None:
    for preset, drops in (("released", True), ("sound", False)):
        runner, phase = begun("ssil", tmp_path / preset, phase=1, preset=preset)
        assert len(phase.new) < runner.learner.cfg.train.batch
        stage = runner.learner.stages(phase)[0]
        plan = stage.sampler.plan(stage.pool, 8, torch.Generator())
        assert (not plan) == drops
        first, begin = begun("ssil", tmp_path / f"{preset}-first", phase=0, preset=preset)
        assert not first.learner.stages(begin)[0].sampler.drop_last


def test_a_released_run_survives_tasks_without_a_single_batch(tmp_path: Path) -> None:
    runner = tiny_runner("ssil", tmp_path, preset="released")
    assert len(runner.run()) == 3


def test_ssil_without_memory_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ssil needs an exemplar memory, and --memory 0 leaves none"):
        tiny_runner("ssil", tmp_path, memory="0")


@pytest.mark.parametrize("settings", [{}, SEPARATE])
def test_a_batch_without_exemplars_has_no_old_term(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, phase = begun("ssil", tmp_path, phase=2, settings=settings)
    batch = batch_of(runner, phase.new)
    z, _ = fixed(runner.learner, batch, monkeypatch)
    assert float(runner.learner.loss(batch, outputs(z))["ce_old"]) == 0
