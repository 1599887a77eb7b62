"""Focal loss: what is classified well already counts less (Lin et al. 2017)."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Plugin
from imbcil.harness.rebalancing import focal


class FocalConfig(Frozen):
    """`gamma`: 0 is the plain loss."""

    gamma: float = Field(default=2.0, ge=0)


class Focal(Plugin):
    """(1 - p_t)^gamma (-log p_t), with several labels an image of each sigmoid. gamma = 2 is the paper's best; its
    alpha, which weighs background against objects, is left out."""

    Config = FocalConfig
    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    source: ClassVar[str] = "Lin et al., ICCV 2017"
    cfg: FocalConfig

    def criterion(self, inner: Criterion) -> Criterion:
        def focused(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            return focal(inner(batch, logits, targets, classes), self.cfg.gamma)

        return focused
