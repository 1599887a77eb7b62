"""Gradient reweighting against worked numbers, autograd and plain float64; and what its switches leave."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import all_scores, tiny_runner
from torch import tensor

from imbcil.methods._gradient_balance import (
    Switches,
    aware_distillation,
    balance,
    distillation_strength,
    distillation_weights,
    head_update,
    log_prior,
)
from imbcil.methods.gradient_reweighting import head_gradients
from imbcil.protocols.scenario import build_scenario
from imbcil.protocols.settings import DataSettings, ProtocolSettings

D = torch.float64
CODE, POSTER = Switches(), Switches(normalisation="sum")


def d(*values: float) -> torch.Tensor:
    return tensor(values, dtype=D)


# --- worked numbers, computed from the released code -------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "sigma", "code", "poster"),
    [
        ((100, 10, 0), 0.277409, (0.995037, 0.099504, 0), (0.909091, 0.090909, 0)),
        ((430, 200, 60, 10, 0), 0.576951, (0.899353, 0.418304, 0.125491, 0.020915, 0), None),
        ((80, 80, 80), 1.0, (0.57735, 0.57735, 0.57735), (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_sigma_and_mixing_weights_are_the_worked_ones(
    lost: tuple[float, ...], sigma: float, code: tuple[float, ...], poster: tuple[float, ...] | None
) -> None:
    entropy, mixing = distillation_weights(d(*lost), CODE)
    assert float(entropy) == pytest.approx(sigma, abs=1e-6)
    assert mixing.tolist() == pytest.approx(code, abs=1e-6)
    if poster is not None:
        assert distillation_weights(d(*lost), POSTER)[1].tolist() == pytest.approx(poster, abs=1e-6)


@pytest.mark.parametrize(("protocol", "n_tasks", "sigma"), [("lfs", 10, 0.3295), ("lfh", 5, 0.766)])
def test_sigma_on_the_published_split_is_the_worked_one_in_the_second_phase(
    protocol: str, n_tasks: int, sigma: float
) -> None:
    """20 exemplars a class stay of the images that the hold-out leaves; CIFAR100-LT, shuffled."""
    data = DataSettings(holdout=0.1, holdout_quirk=True)
    settings = ProtocolSettings(
        protocol=protocol, dataset="cifar100-lt", n_tasks=n_tasks, order="shuffled", data=data
    )
    scenario = build_scenario(settings, need_images=False)
    labels = scenario.phases[0].train // 500  # without the images rows are listed by label, 500 each
    counts = torch.from_numpy(np.bincount(scenario.arrival_id[labels])).double()
    found = float(distillation_weights(counts - counts.clamp(max=20), CODE)[0])
    assert round(found, len(str(sigma)) - 2) == sigma


def test_alpha_and_r_are_the_worked_ones_when_new_classes_have_seen_more_gradient() -> None:
    ratios = balance(d(4, 2, 8, 10, 5), 3, 0.75, CODE)
    assert ratios.alpha.tolist() == pytest.approx([0.5, 1, 0.25, 0.5, 1])
    assert ratios.task.tolist() == pytest.approx([1, 1, 1, 0.759161, 0.759161], abs=1e-6)


def test_r_holds_both_sides_back_when_old_classes_have_seen_more_gradient() -> None:
    ratios = balance(d(10, 5, 4, 2), 2, 0.75, CODE)
    assert ratios.task.tolist() == pytest.approx([0.4, 0.4, 0.188947, 0.188947], abs=1e-6)


@pytest.mark.parametrize(
    ("n_seen", "n_new", "damping", "strength"),
    [(590, 1082, 0.702668, 0.516905), (4719, 801, 0.425329, 1.699052), (4719, 339, 0.393381, 2.611699)],
)
def test_attenuation_and_lambda_are_those_of_the_published_splits(
    n_seen: float, n_new: float, damping: float, strength: float
) -> None:
    assert math.exp(-n_seen / (n_seen + n_new)) == pytest.approx(damping, abs=1e-6)
    assert distillation_strength(n_seen, n_new, CODE) / 4 == pytest.approx(strength, abs=1e-6)
    ratios = balance(d(1, 1), 1, n_seen / (n_seen + n_new), CODE)
    assert float(ratios.task[1]) == pytest.approx(damping, abs=1e-6)


# --- guards --------------------------------------------------------------------------------------------------------


def test_a_class_without_gradient_so_far_is_left_out_of_the_minimum_and_keeps_alpha_one() -> None:
    assert balance(d(0, 2, 4), 0, 0.0, CODE).alpha.tolist() == [1, 1, 0.5]
    assert balance(d(0, 0), 0, 0.0, CODE).alpha.tolist() == [1, 1]


@pytest.mark.parametrize("lost", [(0.0, 0.0, 0.0), (7.0,)])
def test_no_lost_data_or_one_old_class_mean_plain_distillation(lost: tuple[float, ...]) -> None:
    sigma, mixing = distillation_weights(d(*lost), CODE)
    assert float(sigma) == 1
    assert mixing.tolist() == [0] * len(lost)


def test_ratios_are_finite_when_one_side_has_seen_no_gradient() -> None:
    for phi in ((0, 0, 3, 1), (3, 1, 0, 0), (0, 0, 0, 0)):
        ratios = balance(d(*phi), 2, 0.5, CODE)
        assert torch.isfinite(ratios.alpha).all()
        assert torch.isfinite(ratios.task).all()


# --- head gradients against autograd -------------------------------------------------------------------------------


class Case:
    """Random features, a linear head, counts and a teacher, all float64."""

    def __init__(self, n_old: int, seed: int = 0, classes: int = 9) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.n_old = n_old
        self.features = torch.randn(16, 7, dtype=D, generator=draw)
        self.weight = torch.randn(classes, 7, dtype=D, generator=draw).requires_grad_()
        self.bias = torch.randn(classes, dtype=D, generator=draw).requires_grad_()
        self.targets = torch.randint(0, classes, (16,), generator=draw)
        self.counts = torch.randint(1, 50, (classes,), generator=draw).double()
        self.teacher = 2 * torch.randn(16, n_old, dtype=D, generator=draw)
        self.lost = torch.randint(0, 90, (n_old,), generator=draw).double()
        self.phi = torch.rand(classes, dtype=D, generator=draw)
        self.logits = self.features @ self.weight.T + self.bias

    def autograd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The rule of the paper's figures and the released code, row by row, from autograd's gradients."""
        share = self.counts / self.counts.sum()
        ce = F.cross_entropy(self.logits + share.log(), self.targets)
        ce_w, ce_b = torch.autograd.grad(ce, (self.weight, self.bias), retain_graph=True)
        n_seen, n_new, old = 590.0, 1082.0, self.n_old
        phi = self.phi + ce_w.norm(dim=1)
        scale = torch.ones_like(phi)
        for j in range(len(phi)):
            side = phi[:old] if j < old else phi[old:]
            scale[j] = side.min() / phi[j]
            if old:
                quotient = phi[old:].mean() / phi[:old].mean()
                damping = 1.0 if j < old else math.exp(-n_seen / (n_seen + n_new))
                scale[j] *= min(1.0, float(quotient * damping))
        weight, bias = scale[:, None] * ce_w, scale * ce_b
        if old:
            kd_w, kd_b = torch.autograd.grad(self.distillation(), (self.weight, self.bias))
            beta = weight.norm() / kd_w[:old].norm()
            weight, bias = weight + beta * kd_w, bias + beta * kd_b
        return weight, bias, phi

    def distillation(self) -> torch.Tensor:
        q = (self.lost + 0.001) / (self.lost + 0.001).sum()
        sigma = -(q * q.log()).sum() / math.log(self.n_old)
        p = self.lost / self.lost.square().sum().sqrt()
        student = self.logits[:, : self.n_old]
        mixed = p * student + (1 - p) * self.teacher
        target = F.softmax(self.teacher / 2, dim=1)
        both = sigma * F.log_softmax(student / 2, dim=1) + (1 - sigma) * F.log_softmax(mixed / 2, dim=1)
        return -(target * both).sum(dim=1).mean()


@pytest.mark.parametrize("seed", range(3))
def test_head_gradients_equal_autograd_in_a_later_phase(seed: int) -> None:
    case = Case(n_old=5, seed=seed)
    found = head_gradients(
        case.features, case.logits.detach(), case.targets, case.counts, 5, case.phi,
        teacher_logits=case.teacher, lost=case.lost, n_seen=590, n_new=1082,
    )  # fmt: skip
    for mine, theirs in zip(found, case.autograd(), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


def test_head_gradients_equal_autograd_in_the_first_phase() -> None:
    case = Case(n_old=0)
    found = head_gradients(case.features, case.logits.detach(), case.targets, case.counts, 0, case.phi)
    for mine, theirs in zip(found, case.autograd(), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [torch.int64, torch.float32], ids=str)
def test_head_gradients_take_counts_of_any_kind_in_the_precision_of_the_logits(kind: torch.dtype) -> None:
    case = Case(n_old=5)
    found = head_gradients(
        case.features, case.logits.detach(), case.targets, case.counts.to(kind), 5, case.phi,
        teacher_logits=case.teacher, lost=case.lost.to(kind), n_seen=590, n_new=1082,
    )  # fmt: skip
    for mine, theirs in zip(found, case.autograd(), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_old", [1, 8, 9])
def test_head_gradients_are_finite_with_one_class_on_a_side_or_none_and_a_class_without_images(
    n_old: int,
) -> None:
    case = Case(n_old=n_old)
    case.counts[-1] = 0
    found = head_gradients(
        case.features, case.logits.detach(), case.targets.clamp(max=7), case.counts, n_old, 0 * case.phi,
        teacher_logits=case.teacher, lost=None, n_seen=590, n_new=0,
    )  # fmt: skip
    assert all(bool(torch.isfinite(each).all()) for each in found)


def test_the_plain_part_is_what_backpropagation_leaves_in_the_head() -> None:
    case = Case(n_old=4)
    total = F.cross_entropy(case.logits + log_prior(case.counts), case.targets)
    total = total + 1.7 * aware_distillation(case.logits[:, :4], case.teacher, case.lost, CODE)
    weight, bias = torch.autograd.grad(total, (case.weight, case.bias))
    update = head_update(
        case.features, case.logits.detach(), case.targets, case.counts, 4, case.phi,
        teacher_logits=case.teacher, lost=case.lost, strength=1.7, attenuation=0.3, switches=CODE,
    )  # fmt: skip
    assert torch.allclose(update.plain_weight, weight, rtol=0, atol=1e-12)
    assert torch.allclose(update.plain_bias, bias, rtol=0, atol=1e-12)


def test_one_step_in_the_loop_leaves_the_wanted_gradients_on_the_head(tmp_path: Path) -> None:
    """The learner corrects by addition; what the optimiser sees is `head_gradients` of the same batch."""
    runner = tiny_runner(
        "gradient_reweighting", tmp_path, recipe={"train": {"epochs": 1, "batch": 64, "lr": 0.05}}
    )
    learner, seen = runner.learner, []
    original = learner.adjust_gradients

    def watched(batch: Any, out: Any) -> None:
        before = learner.state["phi"].clone()
        original(batch, out)
        wanted = head_gradients(
            out.features, out.logits, batch.targets, batch.counts, learner.state["n_old"], before,
            teacher_logits=batch.scratch.get("teacher"), lost=learner.state["lost"],
            **split_counts(learner.state),
        )  # fmt: skip
        grads = [block.weight.grad for block in learner.net.head.blocks]
        seen.append(float((torch.cat(grads) - wanted[0].detach()).abs().max()))

    object.__setattr__(learner, "adjust_gradients", watched)
    runner.run()
    assert len(seen) == 3
    assert max(seen) < 1e-5


def split_counts(state: dict[str, Any]) -> dict[str, float]:
    """Any two counts with the state's attenuation n_seen / (n_seen + n_new)."""
    return {"n_seen": state["attenuation"], "n_new": 1 - state["attenuation"]}


# --- switches ------------------------------------------------------------------------------------------------------

OFF = {"prior": False, "alpha": False, "ratio": False, "beta": False, "distillation": "none"}


def test_with_everything_off_it_is_replay_bit_for_bit(tmp_path: Path) -> None:
    settings = {f"gradient_reweighting.{name}": value for name, value in OFF.items()}
    mine = tiny_runner("gradient_reweighting", tmp_path / "off", settings=settings)
    plain = tiny_runner("replay", tmp_path / "replay")
    mine.run(), plain.run()
    for name, value in all_scores(plain.s.folder).items():
        assert np.array_equal(value, all_scores(mine.s.folder)[name]), name


@pytest.mark.parametrize(
    ("name", "value"),
    [("prior", False), ("alpha", False), ("decoupling", False), ("ratio", False), ("symmetric_ratio", True),
     ("beta", False), ("distillation", "kd"), ("distillation", "none"), ("normalisation", "sum"),
     ("attenuation", "classes")],
)  # fmt: skip
def test_every_switch_changes_the_run(name: str, value: object, tmp_path: Path) -> None:
    plain = tiny_runner("gradient_reweighting", tmp_path / "plain")
    changed = tiny_runner(
        "gradient_reweighting", tmp_path / "changed", settings={f"gradient_reweighting.{name}": value}
    )
    plain.run(), changed.run()
    left, right = all_scores(plain.s.folder), all_scores(changed.s.folder)
    assert not np.array_equal(left["2/test/fc"], right["2/test/fc"])


def test_phi_alpha_r_beta_and_sigma_are_logged(tmp_path: Path) -> None:
    runner = tiny_runner("gradient_reweighting", tmp_path)
    metrics = runner.run()[-1].metrics
    for name in ("r_old", "r_new", "beta", "sigma"):
        assert math.isfinite(metrics[f"phase/gradient_reweighting/{name}"])
    header = (runner.s.folder.path / "per_class.csv").read_text().splitlines()[0].split(",")
    assert {"phi", "alpha", "weight_norm", "accuracy"} <= set(header)
