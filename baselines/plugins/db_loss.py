"""Distribution-balanced loss (DB): weights against co-occurrence, negatives that are tolerated (Wu et al. 2020)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Learner, Plugin, Stage
from imbcil.harness.pools import Pool


class DBLossConfig(Frozen):
    """`alpha`, `beta`, `mu`: of the weights (mu 0.2 on COCO-MLT). `kappa`, `tolerance`: of the negatives (kappa, lambda
    of the paper; lambda 2 on COCO-MLT). `gamma`: of the focal factor, which doubles the loss; 0 is DB without it."""

    alpha: float = Field(default=0.1, ge=0)
    beta: float = Field(default=10.0, ge=0)
    mu: float = 0.3
    kappa: float = Field(default=0.05, ge=0)
    tolerance: float = Field(default=5.0, gt=0)
    gamma: float = Field(default=2.0, ge=0)


class DBLoss(Plugin):
    """Binary cross-entropy of z' = z - v, v_c = (kappa / lambda) log(N / n_c - 1); negatives (1 / lambda) log(1 +
    exp(lambda z')); both times alpha + sigmoid(beta (r_c - mu)), where r_c(x) is 1 / n_c over the sum of 1 / n_i of the
    image's positives. N: images of the stage's pool. Defaults are VOC-MLT's."""

    Config = DBLossConfig
    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    labels: ClassVar[frozenset[str]] = frozenset({"multi"})
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Wu et al., ECCV 2020"
    cfg: DBLossConfig

    def begin_stage(self, stage: Stage, learner: Learner) -> None:
        self.state["images"] = len(stage.pool) if isinstance(stage.pool, Pool) else 0

    def criterion(self, inner: Criterion) -> Criterion:
        def balanced(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            counts = batch.counts[classes]
            return distribution_balanced(logits, targets[:, classes], counts, self.state["images"], self.cfg)

        return balanced


def distribution_balanced(
    logits: Tensor, targets: Tensor, counts: Tensor, images: int, cfg: DBLossConfig
) -> Tensor:
    """Losses [B, K] against targets [B, K] in 0..1, NaN where hidden; counts [K] positives among `images`. An image
    without a positive has the weight that r = infinity gives, as in the released code."""
    shown = ~targets.isnan()
    known = torch.where(shown, targets, 0.0)
    inverse = 1 / counts.clamp(min=1)
    together = (known * inverse).sum(dim=1, keepdim=True)
    weights = cfg.alpha + torch.sigmoid(cfg.beta * (inverse / together.clamp(min=1e-12) - cfg.mu))
    odds = (images / counts.clamp(min=1) - 1).clamp(
        min=1e-6
    )  # a class in every image has no bias, not minus infinity
    shifted = logits - cfg.kappa / cfg.tolerance * odds.log()
    slope = known + (1 - known) * cfg.tolerance
    losses = F.binary_cross_entropy_with_logits(slope * shifted, known, reduction="none")
    if cfg.gamma:
        losses = 2 * (1 - torch.exp(-losses)).clamp(min=1e-12).pow(cfg.gamma) * losses
    return torch.where(shown, weights / slope * losses, 0.0)
