"""Losses that several learners share: pure functions, each tested against a closed form."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation


def knowledge_distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy of the softened student against the softened teacher, in nats, batch mean.

    student, teacher: logits [B, K_old], else ContractViolation. No gradient reaches the teacher.
    Hinton et al. 2015, sec. 2, without its factor T^2 (so the pull weakens as T grows).
    """
    require_same_shape(student=student, teacher=teacher)
    target = F.softmax(teacher.detach() / temperature, dim=1)
    return -(target * F.log_softmax(student / temperature, dim=1)).sum(dim=1).mean()


def visible_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy [B, K] against targets [B, K] in 0..1; zero, with zero gradient, where they are NaN."""
    require_same_shape(logits=logits, targets=targets)
    shown = ~targets.isnan()
    known = torch.where(shown, targets, 0.0)
    cells = F.binary_cross_entropy_with_logits(logits, known, reduction="none")
    return torch.where(shown, cells, 0.0)


def decay_positives(cells: Tensor, logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy `cells` [B, K] of logits against targets in 0..1, with `weight` [B, K] on its positive half
    -y log p; the negative half stays."""
    return cells - (1 - weight) * targets * F.softplus(-logits)


def asymmetric_loss(logits: Tensor, targets: Tensor, focus: float = 4.0, margin: float = 0.05) -> Tensor:
    """ASL [B, K] against targets {0, 1}, zero where they are NaN: -y log p - (1 - y) p_m^focus log(1 - p_m), where
    p_m = max(p - margin, 0) and no gradient passes the focus (Ben-Baruch et al. 2021, eqs. 5 to 7; KRT's constants)."""
    shown = ~targets.isnan()
    known = torch.where(shown, targets, 0.0)
    shifted = (logits.sigmoid() - margin).clamp(min=0)
    negative = -(1 - known) * shifted.detach().pow(focus) * (1 - shifted).clamp(min=1e-8).log()
    return torch.where(shown, -known * F.logsigmoid(logits) + negative, 0.0)


def mean_over(cells: Tensor, shown: Tensor) -> Tensor:
    """Mean of cells [B, K] over those that are shown (bool [B, K]); zero where none is."""
    return torch.where(shown, cells, 0.0).sum() / shown.sum().clamp(min=1)


def probability_gap(p: Tensor, targets: Tensor) -> Tensor:
    """Mean probability [B, K] of positives minus that of negatives; hidden cells (NaN) are neither."""
    return mean_over(p, targets >= 0.5) - mean_over(p, targets < 0.5)


def soft_bce_cells(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy [B, K_old] of the student's sigmoids against the teacher's, logits of one shape (else
    ContractViolation). No gradient reaches the teacher."""
    require_same_shape(student=student, teacher=teacher)
    target = (teacher.detach() / temperature).sigmoid()
    return F.binary_cross_entropy_with_logits(student / temperature, target, reduction="none")


def soft_bce(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean of `soft_bce_cells` times T^2: distillation in multi-label ports of LwF and, with T = 1, in CSC's code."""
    return soft_bce_cells(student, teacher, temperature).mean() * temperature**2


def sigmoid_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy of the student's sigmoids against the teacher's, summed over classes, batch mean.

    student, teacher: logits [B, K_old], else ContractViolation. Rebuffi et al. 2017, alg. 3, in the form
    that Long-Tailed-CIL runs: a sum over classes, so its weight grows with their number.
    """
    require_same_shape(student=student, teacher=teacher)
    target = teacher.detach().sigmoid()
    return F.binary_cross_entropy_with_logits(student, target, reduction="none").sum(dim=1).mean()


def cosine_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of student and teacher features [B, D], batch mean. Hou et al. 2019, eq. 6 (less-forget constraint);
    Douillard et al. 2020, eq. 2 (POD-flat) up to a factor."""
    require_same_shape(features=features, teacher=teacher)
    return (1 - F.cosine_similarity(features, teacher.detach(), dim=1)).mean()


def pod_spatial(maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Distance between pooled maps [B, C, H, W], batch mean, then mean over levels.

    Each map is squared, summed over its width and over its height, and the two results, flattened side by side, are
    scaled to length 1. Douillard et al. 2020, eqs. 3 and 4, with the square and the scaling of their code.
    """
    levels = []
    for mine, theirs in zip(maps, teacher, strict=True):
        require_same_shape(map=mine, teacher=theirs)
        levels.append((_pooled(mine) - _pooled(theirs.detach())).norm(dim=1).mean())
    return torch.stack(levels).mean()


def _pooled(values: Tensor) -> Tensor:
    squared = (values if values.dtype == torch.float64 else values.float()).square()
    return F.normalize(
        torch.cat([squared.sum(dim=3).flatten(1), squared.sum(dim=2).flatten(1)], dim=1), dim=1
    )


def task_distillation(
    student: Tensor, teacher: Tensor, tasks: Sequence[slice], temperature: float = 2.0
) -> Tensor:
    """Knowledge distillation inside each task's slice of the logits, summed over `tasks` (none: zero).

    student, teacher: logits [B, K]; slices of both must fit. The gradient is that of the sum of
    KL(teacher || student), which differs by the teacher's entropy. Castro et al. 2018; Ahn et al. 2021 (TKD).
    """
    total = student.new_zeros(())
    for task in tasks:
        total = total + knowledge_distillation(student[:, task], teacher[:, task], temperature)
    return total


def distillation(student: Tensor, teacher: Tensor, temperature: float, multi: bool) -> Tensor:
    """Knowledge distillation by one softmax or, with several labels an image, by a sigmoid a class (`soft_bce`)."""
    return (soft_bce if multi else knowledge_distillation)(student, teacher, temperature)


def proportioned(
    ce: Tensor, student: Tensor, teacher: Tensor | None, temperature: float, multi: bool = False
) -> dict[str, Tensor]:
    """(1 - lambda) CE + lambda KD over the old slice, lambda = K_old / K: the terms "ce" and "kd" of BiC and WA.

    ce: scalar; student [B, K], teacher [B, K_old] or None where nothing is old. Wu et al. 2019, sec. 3 (the weight lambda).
    """
    if teacher is None:
        return {"ce": ce}
    n_old, n_classes = teacher.shape[1], student.shape[1]
    share = n_old / n_classes
    kd = distillation(student[:, :n_old], teacher, temperature, multi)
    return {"ce": (1 - share) * ce, "kd": share * kd}


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ContractViolation naming the tensors unless all have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ContractViolation(f"Shapes must agree: {listed}.")


def nca(logits: Tensor, targets: Tensor, margin: Tensor | None = None) -> Tensor:
    """NCA on scaled similarities [B, K], batch mean (PODNet, eq. 7).

    With a (scaled) margin, the paper's: log sum_{c != y} e^{s_c} - (s_y - margin), never below 0. Without, the
    authors' code: s counted from its maximum, and 1 beside the sum over c != y.
    """
    own = F.one_hot(targets, logits.shape[1]).bool()
    if margin is None:
        logits = logits - logits.amax(dim=1, keepdim=True)
    positive = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    if margin is None:
        return (logits.masked_fill(own, 0.0).logsumexp(dim=1) - positive).mean()
    others = logits.masked_fill(own, torch.finfo(logits.dtype).min / 2).logsumexp(dim=1)
    return F.relu(others - (positive - margin)).mean()
