"""Class-balanced loss: classes weighted by the inverse effective number of their images (Cui et al. 2019)."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Plugin
from imbcil.harness.rebalancing import effective_number_weights, focal, weighted


class ClassBalancedLossConfig(Frozen):
    """`beta`: 0 weighs all alike. `gamma`: above 0, of the focal loss. `start`: share of the stage with weights 1
    (deferred re-weighting, 0.8 in Cao et al. 2019)."""

    beta: float = Field(default=0.9999, ge=0, lt=1)
    gamma: float = Field(default=0.0, ge=0)
    start: float = Field(default=0.0, ge=0, le=1)


class ClassBalancedLoss(Plugin):
    """w_y L / mean of w over the batch, w_c = (1 - beta) / (1 - beta^n_c) scaled to sum to the number of classes;
    beta = 0.9999 is the paper's best on CIFAR. With several labels an image, each column times its class's weight."""

    Config = ClassBalancedLossConfig
    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Cui et al., CVPR 2019"
    cfg: ClassBalancedLossConfig

    def criterion(self, inner: Criterion) -> Criterion:
        def balanced(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            losses = inner(batch, logits, targets, classes)
            if self.cfg.gamma:
                losses = focal(losses, self.cfg.gamma)
            if batch.progress < self.cfg.start:
                return losses
            weights = effective_number_weights(batch.counts[classes], self.cfg.beta)
            ids = targets if targets.is_floating_point() else targets - (classes.start or 0)
            return weighted(losses, weights, ids)

        return balanced
