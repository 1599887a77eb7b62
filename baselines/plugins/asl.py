"""Asymmetric loss (ASL): easy negatives count less, very easy ones not at all (Ridnik et al. 2021)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Plugin


class ASLConfig(Frozen):
    """`gamma_negative`, `gamma_positive`: focusing; `margin`: by which a negative's probability is lowered;
    `differentiate`: let gradients through the focusing factor. Defaults are those of the authors' COCO script; their
    class starts from gamma_positive = 1 and differentiates."""

    gamma_negative: float = Field(default=4.0, ge=0)
    gamma_positive: float = Field(default=0.0, ge=0)
    margin: float = Field(default=0.05, ge=0, lt=1)
    differentiate: bool = False


class ASL(Plugin):
    """-(1 - p)^g+ log p for a positive, -p_m^g- log(1 - p_m) with p_m = max(p - margin, 0) for a negative, zero where
    the label is hidden. The learner takes the mean over cells; the authors sum over batch and classes, so a learning
    rate of theirs does not carry over."""

    Config = ASLConfig
    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    labels: ClassVar[frozenset[str]] = frozenset({"multi"})
    source: ClassVar[str] = "Ridnik et al., ICCV 2021"
    cfg: ASLConfig

    def criterion(self, inner: Criterion) -> Criterion:
        def asymmetric(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            return asymmetric_loss(logits, targets[:, classes], self.cfg)

        return asymmetric


def asymmetric_loss(logits: Tensor, targets: Tensor, cfg: ASLConfig) -> Tensor:
    """Losses [B, K] against targets [B, K] in 0..1, NaN where hidden."""
    shown = ~targets.isnan()
    known = torch.where(shown, targets, 0.0)
    positive = logits.sigmoid()
    negative = (1 - positive + cfg.margin).clamp(max=1)
    logs = known * positive.clamp(min=1e-8).log() + (1 - known) * negative.clamp(min=1e-8).log()
    missing = known * (1 - positive) + (1 - known) * (1 - negative)
    missing = missing if cfg.differentiate else missing.detach()
    power = known * cfg.gamma_positive + (1 - known) * cfg.gamma_negative
    factor = torch.where(power > 0, missing.clamp(min=1e-12).pow(power), 1.0)
    return torch.where(shown, -factor * logs, 0.0)
