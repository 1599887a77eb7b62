"""Gradient reweighting (He & Zhu, CVPR 2024; "DGR" in tables): the head's gradients are rebalanced over classes
and between old and new tasks, and distillation is weighted by how much data each class has lost.

Poster and released code disagree in places; every such choice is a setting whose default is the code's.
What was measured against the poster stands in docs/gradient_reweighting.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase
from imbcil.harness.losses import knowledge_distillation, require_same_shape


@dataclass(frozen=True)
class Switches:
    """What of the method is on; the fields of `GradientReweightingConfig` with the same names."""

    prior: bool = True
    alpha: bool = True
    decoupling: bool = True
    ratio: bool = True
    symmetric_ratio: bool = False
    beta: bool = True
    distillation: Literal["none", "kd", "dakd"] = "dakd"
    normalisation: Literal["sum", "norm2"] = "norm2"
    strength: float = 0.7


class GradientReweightingConfig(LearnerConfig):
    """prior: log class prior in the training loss. alpha: class-balance ratio. decoupling: its minimum is taken
    within old and within new classes. ratio: task-balance ratio r; symmetric_ratio turns its direction for new
    classes (the code uses new / old for both). beta: loss-balance ratio. distillation and its mixing weights'
    normalisation ("sum": poster, "norm2": code). attenuation: rho counts images (the released code) or classes
    (its copy for pre-trained models). strength: 0.7 in lambda_t = 0.7 sqrt(n_seen / n_new)."""

    prior: bool = True
    alpha: bool = True
    decoupling: bool = True
    ratio: bool = True
    symmetric_ratio: bool = False
    beta: bool = True
    distillation: Literal["none", "kd", "dakd"] = "dakd"
    normalisation: Literal["sum", "norm2"] = "norm2"
    attenuation: Literal["images", "classes"] = "images"
    gamma: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    strength: float = Field(default=0.7, ge=0)

    @property
    def switches(self) -> Switches:
        return Switches(**{name: getattr(self, name) for name in Switches.__dataclass_fields__})


class GradientReweighting(Learner):
    """Replay whose head sees rebalanced gradients; the backbone sees the plain sum of both losses.

    State: `phi` [K], the accumulated gradient norms of the phase; sums of r and beta for the log.
    """

    title = "DGR"
    Config = GradientReweightingConfig
    needs = Needs(
        head=frozenset({"linear"}), criterion="a regularised softmax with its own class prior", teacher=True
    )
    presets = {"released": {}, "sound": {}}
    cfg: GradientReweightingConfig

    @property
    def reweights(self) -> bool:
        return self.cfg.alpha or self.cfg.ratio or self.cfg.beta

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        device = self.net.head.weight.device
        memory = phase.memory.counts(phase.hi)[: phase.lo]
        lost = (phase.seen_counts[: phase.lo] - memory).clamp(min=0)
        self.state["phi"] = torch.zeros(phase.hi, device=device)
        self.state["traces"] = torch.zeros(4, device=device)  # steps, and sums of r_old, r_new, beta
        self.state["lost"] = lost.to(device)
        self.state["n_old"] = phase.lo
        self.state["n_seen"] = float(phase.seen_counts[: phase.lo].sum())
        self.state["n_new"] = float(phase.seen_counts[phase.lo :].sum())
        if self.cfg.attenuation == "classes":
            self.state["attenuation"] = phase.lo / phase.hi
        else:
            self.state["attenuation"] = self.state["n_seen"] / max(
                self.state["n_seen"] + self.state["n_new"], 1
            )

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        logits = out.logits + log_prior(batch.counts) if self.cfg.prior else out.logits
        terms = {"ce": F.cross_entropy(logits, batch.targets)}
        teacher = self.teacher_logits(batch) if self.cfg.distillation != "none" else None
        if teacher is None:
            return terms
        batch.scratch["teacher"] = teacher
        sigma, mixing = distillation_weights(self.state["lost"], self.cfg.switches)
        student = out.logits[:, : teacher.shape[1]]
        kd = decoupled_distillation(student, teacher, sigma, mixing, self.cfg.temperature)
        return {**terms, "dakd": self.plain_weight() * kd}

    def plain_weight(self) -> float:
        """lambda_t T^2: the weight of the distillation in the loss."""
        return distillation_strength(
            self.state["n_seen"], self.state["n_new"], self.cfg.temperature, self.cfg.strength
        )

    @torch.no_grad()
    def adjust_gradients(self, batch: Batch, out: Outputs) -> None:
        """Add (wanted - plain) to the head's gradients, so that other terms' shares survive."""
        if not self.reweights:
            return
        parts = gradient_parts(
            out.features, out.logits, batch.targets, batch.counts, self.state["n_old"],
            teacher_logits=batch.scratch.get("teacher"), lost=self.state["lost"],
            temperature=self.cfg.temperature, switches=self.cfg.switches,
        )  # fmt: skip
        self.state["phi"] += parts.ce_weight.norm(dim=1)
        ratios = balance(self.state["phi"], self.state["n_old"], self.state["attenuation"], self.cfg.gamma,
                         self.cfg.switches)  # fmt: skip
        scale, beta = (
            ratios.alpha * ratios.task,
            loss_balance(parts, ratios, self.plain_weight(), self.cfg.switches),
        )
        pull = beta - self.plain_weight()
        weight = (scale - 1).unsqueeze(1) * parts.ce_weight
        bias = (scale - 1) * parts.ce_bias
        n_old = self.state["n_old"]
        if parts.kd_weight is not None and parts.kd_bias is not None:
            weight[:n_old] += pull * parts.kd_weight
            bias[:n_old] += pull * parts.kd_bias
        for block, classes in zip(self.net.head.blocks, self.net.head.slices(), strict=True):
            block.weight.grad += weight[classes]
            block.bias.grad += bias[classes]
        one = torch.ones_like(beta)
        first = ratios.task[0] if n_old else one
        self.state["traces"] += torch.stack([one, first, ratios.task[-1], beta])

    def end_phase(self, phase: Phase) -> None:
        self.log_ratios(phase)
        super().end_phase(phase)

    def log_ratios(self, phase: Phase) -> None:
        """Phi and alpha per class; sigma, and the phase's mean r and beta."""
        steps, r_old, r_new, beta = self.state["traces"].tolist()
        ratios = balance(self.state["phi"], self.state["n_old"], self.state["attenuation"], self.cfg.gamma,
                         self.cfg.switches)  # fmt: skip
        self.tools.log_per_class("phi", self.state["phi"])
        self.tools.log_per_class("alpha", ratios.alpha)
        if phase.index and steps:
            sigma, _ = distillation_weights(self.state["lost"], self.cfg.switches)
            for name, value in (("r_old", r_old), ("r_new", r_new), ("beta", beta)):
                self.tools.log(name, value / steps)
            self.tools.log("sigma", float(sigma))


# --- the method as pure functions ---------------------------------------------------------------------------------


def log_prior(class_counts: Tensor) -> Tensor:
    """log of the classes' shares [K] (sec. "regularised softmax"); a class without a row counts as one."""
    counts = class_counts.clamp(min=1)
    return (counts / counts.sum()).log()


def distillation_strength(n_seen: float, n_new: float, temperature: float, strength: float = 0.7) -> float:
    """lambda_t T^2 with lambda_t = 0.7 sqrt(n_seen / n_new), both counts of images."""
    return strength * math.sqrt(n_seen / max(n_new, 1.0)) * temperature**2


def distillation_weights(lost: Tensor, switches: Switches) -> tuple[Tensor, Tensor]:
    """(sigma, mixing weights p [K_old]) from the images that each old class has lost.

    sigma = H(q) / log K_old with q = (s + 0.001) / sum: 1 where the loss is balanced, which is plain distillation;
    so are no lost data and a single old class. p = s / sum s (poster) or s / ||s||_2 (code).
    """
    one = torch.ones((), dtype=lost.dtype, device=lost.device)
    if switches.distillation != "dakd" or lost.numel() < 2:
        return one, torch.zeros_like(lost)
    share = (lost + 0.001) / (lost + 0.001).sum()
    entropy = -(share * share.log()).sum() / math.log(lost.numel())
    total = lost.sum() if switches.normalisation == "sum" else lost.norm()
    some = total > 0
    mixing = torch.where(some, lost / torch.where(some, total, one), torch.zeros_like(lost))
    return torch.where(some, entropy, one), mixing


def decoupled_distillation(
    student: Tensor, teacher: Tensor, sigma: Tensor, mixing: Tensor, temperature: float
) -> Tensor:
    """Distribution-aware distillation (DAKD), batch mean of cross-entropies over old classes.

    student, teacher: raw logits [B, K_old]. sigma KD(z) + (1 - sigma) KD(p z + (1 - p) teacher).
    """
    require_same_shape(student=student, teacher=teacher)
    plain = knowledge_distillation(student, teacher, temperature)
    mixed = mixing * student + (1 - mixing) * teacher.detach()
    return sigma * plain + (1 - sigma) * knowledge_distillation(mixed, teacher, temperature)


@dataclass(frozen=True)
class Parts:
    """Plain head gradients: cross-entropy's [K, D], [K]; distillation's [K_old, D], [K_old], without lambda T^2."""

    ce_weight: Tensor
    ce_bias: Tensor
    kd_weight: Tensor | None
    kd_bias: Tensor | None


def gradient_parts(
    features: Tensor, logits: Tensor, targets: Tensor, class_counts: Tensor, n_old: int, *,
    teacher_logits: Tensor | None, lost: Tensor | None, temperature: float, switches: Switches,
) -> Parts:  # fmt: skip
    """Both losses' head gradients in closed form: dL/dW = (dL/dz)^T h, no backward pass and no loop over classes."""
    adjusted = logits + log_prior(class_counts) if switches.prior else logits
    ce = (adjusted.softmax(dim=1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    kd = None
    if teacher_logits is not None and n_old and switches.distillation != "none":
        lost = torch.zeros(n_old, dtype=logits.dtype, device=logits.device) if lost is None else lost
        sigma, mixing = distillation_weights(lost, switches)
        target = (teacher_logits / temperature).softmax(dim=1)
        student = logits[:, :n_old]
        mixed = mixing * student + (1 - mixing) * teacher_logits
        plain = (student / temperature).softmax(dim=1) - target
        blended = mixing * ((mixed / temperature).softmax(dim=1) - target)
        kd = (sigma * plain + (1 - sigma) * blended) / (temperature * len(targets))
    kd_weight = None if kd is None else kd.T @ features
    return Parts(ce.T @ features, ce.sum(dim=0), kd_weight, None if kd is None else kd.sum(dim=0))


@dataclass(frozen=True)
class Ratios:
    """alpha [K], class-balance ratios; task [K], the task-balance ratio r of each class's side."""

    alpha: Tensor
    task: Tensor


def balance(accumulated: Tensor, n_old: int, attenuation: float, gamma: float, switches: Switches) -> Ratios:
    """Ratios from the accumulated gradient norms Phi [K].

    alpha_j = min Phi / Phi_j within old and within new classes; a class with Phi = 0 is left out of the minimum
    and keeps 1. r is min(1, R) for old and min(1, R exp(-gamma rho)) for new classes, R = mean Phi of new over old.
    """
    sides = [accumulated[:n_old], accumulated[n_old:]] if switches.decoupling and n_old else [accumulated]
    alpha = (
        torch.cat([_smallest_over(side) for side in sides])
        if switches.alpha
        else torch.ones_like(accumulated)
    )
    if not switches.ratio or not n_old:
        return Ratios(alpha, torch.ones_like(accumulated))
    old, new = accumulated[:n_old].mean(), accumulated[n_old:].mean()
    damping = math.exp(-gamma * attenuation)
    towards_new = _quotient(old, new) if switches.symmetric_ratio else _quotient(new, old)
    r_old = _quotient(new, old).clamp(max=1)
    r_new = (towards_new * damping).clamp(max=1)
    is_old = torch.arange(len(accumulated), device=accumulated.device) < n_old
    return Ratios(alpha, torch.where(is_old, r_old, r_new))


def _smallest_over(values: Tensor) -> Tensor:
    filled = torch.where(values > 0, values, torch.inf)
    return torch.where(values > 0, filled.min() / filled, 1.0)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 1.0)


def loss_balance(parts: Parts, ratios: Ratios, plain_weight: float, switches: Switches) -> Tensor:
    """beta: norm of the reweighted cross-entropy gradient over the norm of the distillation gradient (weights only);
    with the switch off, the plain weight lambda_t T^2."""
    plain = torch.full((), plain_weight, dtype=parts.ce_weight.dtype, device=parts.ce_weight.device)
    if not switches.beta or parts.kd_weight is None:
        return plain
    reweighted = (ratios.alpha * ratios.task * parts.ce_weight.norm(dim=1)).norm()
    below = parts.kd_weight.norm()
    return torch.where(below > 0, reweighted / torch.where(below > 0, below, 1.0), plain)


def head_gradients(
    features: Tensor, logits: Tensor, targets: Tensor, class_counts: Tensor, n_old: int, accumulated: Tensor, *,
    teacher_logits: Tensor | None = None, lost: Tensor | None = None, n_seen: float = 0.0, n_new: float = 0.0,
    temperature: float = 2.0, gamma: float = 1.0, switches: Switches = Switches(),
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients that the head's optimiser sees: (weight_grad [K, D], bias_grad [K], accumulated [K]).

    features [B, D], raw logits [B, K], targets [B], class_counts [K] rows of the pool, n_old classes first;
    accumulated [K], Phi before this step (the returned one includes it); teacher_logits [B, n_old] and lost [n_old]
    images for the beta-scaled distillation; n_seen, n_new: images behind lambda_t and the attenuation.
    """
    parts = gradient_parts(features, logits, targets, class_counts, n_old, teacher_logits=teacher_logits, lost=lost,
                           temperature=temperature, switches=switches)  # fmt: skip
    accumulated = accumulated + parts.ce_weight.norm(dim=1)
    ratios = balance(accumulated, n_old, n_seen / max(n_seen + n_new, 1.0), gamma, switches)
    scale = ratios.alpha * ratios.task
    weight, bias = scale.unsqueeze(1) * parts.ce_weight, scale * parts.ce_bias
    if parts.kd_weight is not None and parts.kd_bias is not None:
        strength = distillation_strength(n_seen, n_new, temperature, switches.strength)
        beta = loss_balance(parts, ratios, strength, switches)
        weight[:n_old] += beta * parts.kd_weight
        bias[:n_old] += beta * parts.kd_bias
    return weight, bias, accumulated
