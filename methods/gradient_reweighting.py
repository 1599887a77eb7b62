"""Gradient reweighting (DGR): head gradients rebalanced over classes and tasks (He & Zhu, CVPR 2024).

The head's gradients are rebalanced over classes and between old and new tasks, and distillation is weighted by how
much data each class has lost. Poster and released code disagree in places; every such choice is a setting whose
default is the code's. What was measured against the poster stands in docs/gradient_reweighting.md.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase
from imbcil.methods._gradient_balance import (
    Switches,
    aware_distillation,
    balance,
    distillation_strength,
    distillation_weights,
    head_gradients,
    head_update,
    log_prior,
)

__all__ = ["GradientReweighting", "head_gradients"]


class GradientReweightingConfig(LearnerConfig, Switches):
    """See `Switches`. attenuation: rho counts images (the released code) or classes (its copy for pre-trained
    models). With prior, alpha, ratio and beta off and no distillation, this is replay bit for bit."""

    attenuation: Literal["images", "classes"] = "images"


class GradientReweighting(Learner):
    """Replay whose head sees rebalanced gradients; the backbone sees the plain sum of both losses.

    State: `phi` [K], accumulated gradient norms of the phase; `lost` [K_old] images; `traces` [4]: steps and sums
    of r for old classes, r for new ones and beta, for the log.
    """

    title = "DGR"
    Config = GradientReweightingConfig
    needs = Needs(
        head=frozenset({"linear"}), criterion="a regularised softmax with its own class prior", teacher=True
    )
    cfg: GradientReweightingConfig

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        device, n_old = self.net.head.weight.device, phase.lo
        kept = phase.memory.counts(phase.hi)[:n_old]
        n_seen, n_new = float(phase.seen_counts[:n_old].sum()), float(phase.seen_counts[n_old:].sum())
        by_images = n_seen / max(n_seen + n_new, 1.0)
        self.state |= {
            "phi": torch.zeros(phase.hi, device=device),
            "traces": torch.zeros(4, device=device),
            "lost": (phase.seen_counts[:n_old] - kept).clamp(min=0).to(device),
            "n_old": n_old,
            "strength": distillation_strength(n_seen, n_new, self.cfg),
            "attenuation": by_images if self.cfg.attenuation == "images" else n_old / phase.hi,
        }

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        logits = out.logits + log_prior(batch.counts) if self.cfg.prior else out.logits
        terms = {"ce": F.cross_entropy(logits, batch.targets, reduction="none").mean()}
        teacher = self.teacher_logits(batch) if self.cfg.distillation != "none" else None
        if teacher is None:
            return terms
        batch.scratch["teacher"] = teacher
        student = out.logits[:, : teacher.shape[1]]
        kd = aware_distillation(student, teacher, self.state["lost"], self.cfg)
        return {**terms, "dakd": self.state["strength"] * kd}

    @torch.no_grad()
    def adjust_gradients(self, batch: Batch, out: Outputs) -> None:
        """Add (wanted - plain) to the head's gradients, so that other terms' shares survive."""
        if not self.cfg.reweights:
            return
        update = head_update(
            out.features, out.logits, batch.targets, batch.counts, self.state["n_old"], self.state["phi"],
            teacher_logits=batch.scratch.get("teacher"), lost=self.state["lost"], strength=self.state["strength"],
            attenuation=self.state["attenuation"], switches=self.cfg,
        )  # fmt: skip
        self.state["phi"].copy_(update.accumulated)
        weight, bias = update.weight - update.plain_weight, update.bias - update.plain_bias
        for block, classes in zip(self.net.head.blocks, self.net.head.slices(), strict=True):
            for parameter, change in ((block.weight, weight), (block.bias, bias)):
                parameter.grad.add_(change[classes])  # type: ignore[union-attr, operator]
        task = update.ratios.task
        self.state["traces"] += torch.stack([torch.ones_like(update.beta), task[0], task[-1], update.beta])

    def end_phase(self, phase: Phase) -> None:
        self.log_ratios(phase)
        super().end_phase(phase)

    def log_ratios(self, phase: Phase) -> None:
        """Phi and alpha per class; sigma, and the phase's mean r and beta."""
        steps, *sums = self.state["traces"].tolist()
        ratios = balance(self.state["phi"], self.state["n_old"], self.state["attenuation"], self.cfg)
        self.tools.log_per_class("phi", self.state["phi"])
        self.tools.log_per_class("alpha", ratios.alpha)
        if phase.index:
            self.tools.log("sigma", float(distillation_weights(self.state["lost"], self.cfg)[0]))
        if phase.index and steps:
            for name, total in zip(("r_old", "r_new", "beta"), sums, strict=True):
                self.tools.log(name, total / steps)
