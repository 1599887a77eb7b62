"""The formulas of gradient reweighting (He & Zhu, CVPR 2024) as pure functions of tensors.

Checked in float64 against autograd and against numbers computed from the released code.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.losses import knowledge_distillation, require_same_shape


class Switches(Frozen):
    """What of the method is on; defaults are the released code's.

    prior: log class prior in the training loss. alpha: class-balance ratio. decoupling: its minimum is taken
    within old and within new classes. ratio: task-balance ratio r; symmetric_ratio turns its direction for new
    classes (the code takes new over old for both). beta: loss-balance ratio. normalisation of the mixing weights:
    "sum" is the poster's, "norm2" the code's. strength: 0.7 in lambda_t = 0.7 sqrt(n_seen / n_new).
    """

    prior: bool = True
    alpha: bool = True
    decoupling: bool = True
    ratio: bool = True
    symmetric_ratio: bool = False
    beta: bool = True
    distillation: Literal["none", "kd", "dakd"] = "dakd"
    normalisation: Literal["sum", "norm2"] = "norm2"
    gamma: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    strength: float = Field(default=0.7, ge=0)

    @property
    def reweights(self) -> bool:
        return self.alpha or self.ratio or self.beta


def log_prior(class_counts: Tensor) -> Tensor:
    """log of the classes' shares [K], the "regularised softmax"; a class without a row counts as one."""
    counts = class_counts.clamp(min=1)
    return (counts / counts.sum()).log()


def distillation_strength(n_seen: float, n_new: float, switches: Switches) -> float:
    """lambda_t T^2 with lambda_t = 0.7 sqrt(n_seen / n_new), both counts of images."""
    return switches.strength * math.sqrt(n_seen / max(n_new, 1.0)) * switches.temperature**2


def distillation_weights(lost: Tensor, switches: Switches) -> tuple[Tensor, Tensor]:
    """(sigma, mixing weights p [K_old]) from the images that each old class has lost, s.

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
    return torch.where(some, entropy, one), torch.where(some, lost / torch.where(some, total, one), 0 * lost)


def aware_distillation(student: Tensor, teacher: Tensor, lost: Tensor, switches: Switches) -> Tensor:
    """Distribution-aware distillation (DAKD): sigma KD(z) + (1 - sigma) KD(p z + (1 - p) teacher), batch mean.

    student, teacher: raw logits [B, K_old]; lost [K_old] images.
    """
    require_same_shape(student=student, teacher=teacher)
    sigma, mixing = distillation_weights(lost, switches)
    mixed = mixing * student + (1 - mixing) * teacher.detach()
    plain = knowledge_distillation(student, teacher, switches.temperature)
    return sigma * plain + (1 - sigma) * knowledge_distillation(mixed, teacher, switches.temperature)


@dataclass(frozen=True)
class Ratios:
    """alpha [K], class-balance ratios; task [K], the task-balance ratio r of each class's side."""

    alpha: Tensor
    task: Tensor


def balance(accumulated: Tensor, n_old: int, attenuation: float, switches: Switches) -> Ratios:
    """Ratios from the accumulated gradient norms Phi [K]; `attenuation` is rho.

    alpha_j = min Phi / Phi_j within old and within new classes; a class with Phi = 0 is left out of the minimum
    and keeps 1. r is min(1, R) for old and min(1, R exp(-gamma rho)) for new classes, R = mean Phi of new over old.
    """
    two = switches.decoupling and 0 < n_old < len(accumulated)
    sides = [accumulated[:n_old], accumulated[n_old:]] if two else [accumulated]
    alpha = (
        torch.cat([_smallest_over(side) for side in sides])
        if switches.alpha
        else torch.ones_like(accumulated)
    )
    if not switches.ratio or n_old in (0, len(accumulated)):  # one side alone
        return Ratios(alpha, torch.ones_like(accumulated))
    old, new = accumulated[:n_old].mean(), accumulated[n_old:].mean()
    r_old = _quotient(new, old)
    r_new = (_quotient(old, new) if switches.symmetric_ratio else r_old) * math.exp(
        -switches.gamma * attenuation
    )
    is_old = torch.arange(len(accumulated), device=accumulated.device) < n_old
    return Ratios(alpha, torch.where(is_old, r_old, r_new).clamp(max=1))


def _smallest_over(values: Tensor) -> Tensor:
    filled = torch.where(values > 0, values, torch.inf)
    return torch.where(values > 0, filled.min() / filled, 1.0)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 1.0)


@dataclass(frozen=True)
class HeadUpdate:
    """What the head's optimiser should see (weight [K, D], bias [K]) and what plain backpropagation leaves there."""

    weight: Tensor
    bias: Tensor
    plain_weight: Tensor
    plain_bias: Tensor
    accumulated: Tensor
    ratios: Ratios
    beta: Tensor


def head_update(
    features: Tensor, logits: Tensor, targets: Tensor, class_counts: Tensor, n_old: int, accumulated: Tensor, *,
    teacher_logits: Tensor | None, lost: Tensor | None, strength: float, attenuation: float, switches: Switches,
) -> HeadUpdate:  # fmt: skip
    """Both losses' head gradients in closed form, dL/dW = (dL/dz)^T h, and rebalanced: no backward pass, no loop
    over classes, nothing read back from the device. Shapes as in `head_gradients`."""
    class_counts = class_counts.to(logits.dtype)  # whole numbers would be divided in float32
    adjusted = logits + log_prior(class_counts) if switches.prior else logits
    ce = (adjusted.softmax(dim=1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    ce_weight, ce_bias = ce.T @ features, ce.sum(dim=0)
    norms = ce_weight.norm(dim=1)
    accumulated = accumulated + norms
    ratios = balance(accumulated, n_old, attenuation, switches)
    scale = ratios.alpha * ratios.task
    weight, bias = scale.unsqueeze(1) * ce_weight, scale * ce_bias
    beta = torch.full((), strength, dtype=logits.dtype, device=logits.device)
    if teacher_logits is None or not n_old or switches.distillation == "none":
        return HeadUpdate(weight, bias, ce_weight, ce_bias, accumulated, ratios, beta)
    lost = logits.new_zeros(n_old) if lost is None else lost.to(logits.dtype)
    kd = _distillation_gradient(logits[:, :n_old], teacher_logits, lost, switches)
    kd_weight, kd_bias = kd.T @ features, kd.sum(dim=0)
    if switches.beta:
        below = kd_weight.norm()
        beta = torch.where(below > 0, (scale * norms).norm() / torch.where(below > 0, below, 1.0), beta)
    rest = logits.shape[1] - n_old
    kd_weight, kd_bias = F.pad(kd_weight, (0, 0, 0, rest)), F.pad(kd_bias, (0, rest))
    return HeadUpdate(
        weight + beta * kd_weight, bias + beta * kd_bias,
        ce_weight + strength * kd_weight, ce_bias + strength * kd_bias, accumulated, ratios, beta,
    )  # fmt: skip


def _distillation_gradient(student: Tensor, teacher: Tensor, lost: Tensor, switches: Switches) -> Tensor:
    """dDAKD/dz [B, K_old]."""
    sigma, mixing = distillation_weights(lost, switches)
    temperature = switches.temperature
    target = (teacher / temperature).softmax(dim=1)
    mixed = mixing * student + (1 - mixing) * teacher
    plain = (student / temperature).softmax(dim=1) - target
    blended = mixing * ((mixed / temperature).softmax(dim=1) - target)
    return (sigma * plain + (1 - sigma) * blended) / (temperature * len(student))


def head_gradients(
    features: Tensor, logits: Tensor, targets: Tensor, class_counts: Tensor, n_old: int, accumulated: Tensor, *,
    teacher_logits: Tensor | None = None, lost: Tensor | None = None, n_seen: float = 0.0, n_new: float = 0.0,
    temperature: float = 2.0, gamma: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients that the head's optimiser sees: (weight_grad [K, D], bias_grad [K], accumulated [K]).

    features [B, D], raw logits [B, K], targets [B]; class_counts [K], rows of the pool; the n_old classes come
    first; accumulated [K], Phi before this step (the returned one includes it); teacher_logits [B, n_old] and
    lost [n_old] images for the beta-scaled distillation (None: no data lost, plain distillation); n_seen, n_new:
    images behind the attenuation. Counts may be whole numbers; all is computed in the precision of the logits.
    """
    switches = Switches(temperature=temperature, gamma=gamma)
    update = head_update(
        features, logits, targets, class_counts, n_old, accumulated, teacher_logits=teacher_logits, lost=lost,
        strength=distillation_strength(n_seen, n_new, switches), attenuation=n_seen / max(n_seen + n_new, 1.0),
        switches=switches,
    )  # fmt: skip
    return update.weight, update.bias, update.accumulated
