"""Re-balancing plug-ins for one label an image: each formula against independent numbers, each stage against its card."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import batch_of, begun, outputs
from tiny import tiny_runner
from torch import Tensor

from imbcil.baselines.plugins.class_balanced_loss import ClassBalancedLoss
from imbcil.baselines.plugins.class_balanced_sampling import ClassBalancedSampling
from imbcil.baselines.plugins.focal import Focal
from imbcil.baselines.plugins.ldam_drw import ldam_margins
from imbcil.baselines.plugins.logit_adjustment import LogitAdjustment
from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import load_plugin
from imbcil.harness.batch import Batch
from imbcil.harness.contract import Plugin
from imbcil.harness.pools import Pool
from imbcil.harness.rebalancing import effective_number_weights
from imbcil.harness.samplers import ClassAware, Deferred, Progressive, Shuffle, Weighted
from imbcil.harness.tools import base_criterion

COUNTS = torch.tensor([500.0, 50.0, 5.0])
LABELS = torch.tensor([0, 1, 2, 1])
LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
ALL = slice(0, 3)


def batch(progress: float = 0.0, counts: Tensor = COUNTS) -> Batch:
    step = round(progress * 10)
    return Batch(
        images=torch.zeros(4, 3, 8, 8), targets=LABELS, mask=None, index=LABELS, slot=LABELS, stream=LABELS,
        counts=counts, stage="train", epoch=step, step=0, steps=1, total=10,
    )  # fmt: skip


def losses(
    kind: type[Plugin], given: Batch | None = None, logits: Tensor = LOGITS, **settings: Any
) -> Tensor:
    plugin = kind(kind.Config(**settings), "it")
    return plugin.criterion(base_criterion)(given or batch(), logits, LABELS, ALL)


def ce(logits: Tensor) -> Tensor:
    """Cross-entropy [B] in float64, by hand."""
    logits = logits.double()
    return logits.exp().sum(dim=1).log() - logits[torch.arange(len(LABELS)), LABELS]


# --- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment_adds_tau_log_pi(tau: float) -> None:
    expected = ce(LOGITS + tau * (COUNTS / 555).log())
    assert torch.allclose(losses(LogitAdjustment, tau=tau).double(), expected, atol=1e-5)


def test_logit_adjustment_with_tau_one_is_balanced_softmax() -> None:
    balanced = load_plugin("balanced_softmax")
    assert torch.allclose(losses(LogitAdjustment), losses(balanced))


def test_posthoc_adjustment_subtracts_tau_log_pi_from_the_scores_alone(tmp_path: Path) -> None:
    settings = {"logit_adjustment.form": "posthoc", "logit_adjustment.tau": 2.0}
    runner, phase = begun("replay+logit_adjustment", tmp_path, 1, settings=settings)
    runner.plugins.items[0].end_phase(phase, runner.learner)
    counts = (phase.memory + phase.new).counts(4)
    raw = torch.randn(2, 4)
    scores = runner.learner.net.calibrated(outputs(raw), "test")
    assert torch.allclose(scores, raw - 2.0 * (counts / counts.sum()).log(), atol=1e-5)
    assert torch.equal(runner.learner.net.calibrated(outputs(raw), "teacher"), raw)


def test_focal_weighs_by_the_missing_probability() -> None:
    plain = ce(LOGITS)
    expected = (1 - torch.exp(-plain)) ** 2 * plain
    assert torch.allclose(losses(Focal).double(), expected, atol=1e-6)
    assert torch.allclose(losses(Focal, gamma=0.0).double(), plain, atol=1e-6)


def test_effective_numbers_are_those_of_the_paper() -> None:
    """E_n = (1 - b^n) / (1 - b), computed as the sum of b^i."""
    numbers = [sum(0.9999**i for i in range(int(n))) for n in COUNTS.tolist()]
    inverse = torch.tensor([1 / number for number in numbers], dtype=torch.float64)
    expected = inverse * 3 / inverse.sum()
    assert torch.allclose(effective_number_weights(COUNTS, 0.9999).double(), expected, rtol=1e-5)
    assert effective_number_weights(torch.tensor([4.0, 0.0, 4.0]), 0.99).tolist() == [1.0, 1.0, 1.0]


def test_class_balanced_loss_has_torchs_weighted_mean() -> None:
    weights = effective_number_weights(COUNTS, 0.9999)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights)
    assert losses(ClassBalancedLoss).mean().item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(losses(ClassBalancedLoss, start=0.5), base_criterion(batch(), LOGITS, LABELS, ALL))
    late = losses(ClassBalancedLoss, batch(0.5), start=0.5)
    assert late.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_balanced_focal_weighs_the_focal_loss() -> None:
    weights = effective_number_weights(COUNTS, 0.9999)[LABELS]
    focused = losses(Focal, gamma=1.0)
    expected = (weights * focused).sum() / weights.sum()
    assert losses(ClassBalancedLoss, gamma=1.0).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_ldam_margins_fall_with_the_fourth_root_and_peak_at_the_rarest_class() -> None:
    margins = ldam_margins(COUNTS, 0.5)
    assert margins.tolist() == pytest.approx([0.5 * (5 / n) ** 0.25 for n in (500, 50, 5)], rel=1e-5)
    assert ldam_margins(torch.tensor([16.0, 0.0]), 0.5).tolist() == [0.5, 0.0]


def test_ldam_takes_the_margin_from_the_true_cosine_and_weighs_late(tmp_path: Path) -> None:
    runner, _ = begun("replay+ldam_drw", tmp_path, 0)
    plugin, net = runner.plugins.items[0], runner.learner.net
    assert net.spec().head.kind == "cosine"
    net.head.scale.fill_(7.0)
    cosines = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    margins = torch.tensor([0.5 * (5 / n) ** 0.25 for n in (500, 50, 5)], dtype=torch.float64)
    shifted = cosines.double().clone()
    for row, label in enumerate(LABELS.tolist()):
        shifted[row, label] -= margins[label]
    criterion = plugin.criterion(base_criterion)
    early = criterion(batch(0.7), 7.0 * cosines, LABELS, ALL)
    assert torch.allclose(early.double(), ce(30 * shifted), atol=1e-4)
    weights = effective_number_weights(COUNTS, 0.9999)[LABELS].double()
    late = criterion(batch(0.8), 7.0 * cosines, LABELS, ALL)
    assert late.mean().item() == pytest.approx(
        float((weights * ce(30 * shifted)).sum() / weights.sum()), rel=1e-4
    )


@pytest.mark.parametrize("method", ["replay+ldam_drw", "icarl+ldam_drw+crt", "replay+ldam_drw+two_stage"])
def test_the_scale_of_the_scores_stays_what_ldam_trains_with(method: str, tmp_path: Path) -> None:
    runner = tiny_runner(method, tmp_path)
    runner.run()
    assert (
        float(runner.learner.net.head.scale) == 30.0
    )  # weight decay would take it towards 0: its gradient is 0


@pytest.mark.parametrize("kind", [LogitAdjustment, ClassBalancedLoss])
def test_a_class_that_the_loader_does_not_deliver_breaks_no_loss(kind: type[Plugin]) -> None:
    counts = torch.tensor([5.0, 3.0, 2.0, 0.0])
    plugin = kind(kind.Config(), "it")
    found = plugin.criterion(base_criterion)(batch(counts=counts), torch.randn(4, 4), LABELS, slice(0, 4))
    assert bool(found.isfinite().all())


# --- sampling -------------------------------------------------------------------------------------------------------


def pool() -> Pool:
    quota = torch.repeat_interleave(torch.arange(3), torch.tensor([160, 32, 8]))
    return Pool.of_new(torch.arange(200), quota)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"form": "instance"}, [0.8, 0.16, 0.04]),
        ({"form": "square_root"}, [n**0.5 / (160**0.5 + 32**0.5 + 8**0.5) for n in (160, 32, 8)]),
        ({"form": "class"}, [1 / 3] * 3),
        ({"q": 0.25}, [n**0.25 / (160**0.25 + 32**0.25 + 8**0.25) for n in (160, 32, 8)]),
        ({"form": "progressive"}, [0.5 * n / 200 + 0.5 / 3 for n in (160, 32, 8)]),
    ],
)
def test_classes_are_drawn_with_the_shares_of_the_card(settings: dict[str, Any], shares: list[float]) -> None:
    plugin = ClassBalancedSampling(ClassBalancedSampling.Config(**settings), "it")
    sampler, generator, drawn = plugin.sampler().at(0.5), torch.Generator().manual_seed(0), []
    for _ in range(60):
        drawn += [rows.rows for rows in sampler.plan(pool(), 64, generator)]
    rows = torch.cat(drawn)
    assert len(rows) == 60 * 200
    found = torch.bincount(pool().quota[rows]).double() / len(rows)
    assert found.tolist() == pytest.approx(shares, abs=0.015)


def test_progressive_draws_start_natural_and_deferred_ones_switch_at_their_share() -> None:
    assert Progressive().at(0.0) == Weighted(natural=1.0)
    assert Deferred().at(0.79) == Shuffle()
    assert Deferred().at(0.8) == Weighted(0.0)


def test_the_sampling_plug_ins_change_the_learners_own_stages_alone(tmp_path: Path) -> None:
    for name, sampler in (("drs", Deferred()), ("class_balanced_sampling", Weighted())):
        runner, phase = begun(f"eeil+two_stage+{name}", tmp_path / name, 1)
        stages = runner.plugins.stages(phase, runner.learner)
        assert [stage.sampler for stage in stages] == [sampler, sampler, ClassAware(per=4)]


# --- after the learner ----------------------------------------------------------------------------------------------


def moved_by_last_stage(method: str, store: Path, **options: Any) -> tuple[set[str], Any]:
    runner, phase = begun(method, store, 2, **options)
    stage = runner.plugins.stages(phase, runner.learner)[-1]
    before = {name: value.clone() for name, value in runner.learner.net.state_dict().items()}
    runner._run_stage(phase, stage)
    now = runner.learner.net.state_dict()
    return {name for name, value in now.items() if not torch.equal(value, before[name])}, stage


def test_crt_draws_the_head_anew_and_moves_nothing_else(tmp_path: Path) -> None:
    moved, stage = moved_by_last_stage("replay+crt", tmp_path / "a")
    blocks = {f"head.blocks.{number}.{leaf}" for number in range(3) for leaf in ("weight", "bias")}
    assert moved == blocks
    assert (stage.optim.epochs, stage.optim.lr, stage.optim.milestones) == (30, 0.1, (10, 20))
    moved, _ = moved_by_last_stage("finetune+crt", tmp_path / "b")  # old classes have no row: their rows rest
    assert moved == {"head.blocks.2.weight", "head.blocks.2.bias"}


def test_crt_starts_from_a_fresh_head(tmp_path: Path) -> None:
    runner, phase = begun("replay+crt", tmp_path, 1)
    before = runner.learner.net.head.weight.detach().clone()
    stage = runner.plugins.stages(phase, runner.learner)[-1]
    assert stage.begin is not None
    stage.begin()
    assert not (runner.learner.net.head.weight == before).any()


@pytest.mark.parametrize("name", ["lws", "two_stage"])
def test_crt_after_a_stage_that_fits_scales_to_the_head_is_refused_before_training(
    name: str, tmp_path: Path
) -> None:
    runner = tiny_runner(f"replay+{name}+crt", tmp_path / "a")
    with pytest.raises(BadInput, match=f"crt draws the head anew after {name} .* write crt before {name}"):
        runner.run()
    assert runner.costs.images == 0
    runner, phase = begun(f"replay+crt+{name}", tmp_path / "b", 0)
    assert [stage.name for stage in runner.plugins.stages(phase, runner.learner)] == ["train", "crt", name]


def test_crt_learns_under_the_correction_that_bic_has_fitted(tmp_path: Path) -> None:
    runner, phase = begun("bic+crt", tmp_path, 1)
    factors, shifts = torch.tensor([1.0, 1.0, 1.0, 0.5]), torch.tensor([0.0, 0.0, 0.0, -2.0])
    runner.learner.net.calibrator("bic").set(factors, shifts)
    *_, stage = runner.plugins.stages(phase, runner.learner)
    given = batch_of(runner, phase.memory + phase.new)
    raw = torch.randn(len(given.targets), 4, generator=torch.Generator().manual_seed(0))
    assert stage.name == "crt" and stage.loss is not None
    wanted = F.cross_entropy(raw * factors + shifts, given.targets)
    assert stage.loss(given, outputs(raw))["ce"].item() == pytest.approx(wanted.item())


def test_lws_learns_scales_from_one_and_moves_nothing_else(tmp_path: Path) -> None:
    moved, stage = moved_by_last_stage("replay+lws", tmp_path)
    assert moved == {f"calibrators.lws.blocks.{number}.a" for number in range(3)}
    assert stage.sampler == ClassAware(per=4)
    runner, phase = begun("replay+lws", tmp_path / "b", 1)
    runner.learner.net.calibrator("lws").set(a=torch.full((4,), 3.0))
    stage = runner.plugins.stages(phase, runner.learner)[-1]
    assert stage.begin is not None and stage.loss is not None
    given, raw = batch_of(runner, phase.new), torch.randn(len(phase.new), 4)
    tripled = F.cross_entropy(3 * raw, given.targets)
    assert stage.loss(given, outputs(raw))["ce"].item() == pytest.approx(tripled.item(), rel=1e-5)
    stage.begin()
    assert torch.equal(runner.learner.net.calibrator("lws").vectors()[0], torch.ones(4))


@pytest.mark.parametrize("name", ["crt", "lws"])
def test_the_second_stage_has_the_momentum_of_the_recipe(name: str, tmp_path: Path) -> None:
    recipe = {"train": {"epochs": 2, "batch": 8, "lr": 0.05, "momentum": 0.8, "nesterov": True}}
    runner, phase = begun(f"replay+{name}", tmp_path, 0, recipe=recipe)
    optim = runner.plugins.stages(phase, runner.learner)[-1].optim
    assert (optim.momentum, optim.nesterov, optim.batch) == (0.8, True, 8)


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_tau_norm_divides_rows_by_their_norm_and_drops_the_bias(tau: float, tmp_path: Path) -> None:
    runner, phase = begun("replay+tau_norm", tmp_path, 1, settings={"tau_norm.tau": tau})
    runner.plugins.items[0].end_phase(phase, runner.learner)
    head, features = runner.learner.net.head, torch.randn(3, 16)
    weight = head.weight.detach().double()
    expected = features.double() @ (weight / weight.norm(dim=1, keepdim=True) ** tau).T
    raw = outputs(head(features, [])["logits"])
    assert torch.allclose(runner.learner.net.calibrated(raw, "test").double(), expected, atol=1e-5)
    assert torch.equal(runner.learner.net.calibrated(raw, "teacher"), raw.logits)
