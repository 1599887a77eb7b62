"""LDAM-DRW: a margin that grows as a class gets rarer, and class weights late in training (Cao et al. 2019)."""

from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, NetSpec, Plugin
from imbcil.harness.rebalancing import effective_number_weights, weighted


class LDAMDRWConfig(Frozen):
    """`margin`: of the rarest class. `scale`: s, on the cosines. `start`: share of the stage before the weights, 1 for
    none (LDAM alone). `beta`: of the weights."""

    margin: float = Field(default=0.5, ge=0, le=2)
    scale: float = Field(default=30.0, gt=0)
    start: float = Field(default=0.8, ge=0, le=1)
    beta: float = Field(default=0.9999, ge=0, lt=1)


class LDAMDRW(Plugin):
    """Cross-entropy of s (cos - margin_y), margin_c = K / n_c^(1/4) with the largest `margin`. A linear head becomes a
    cosine one whose scale stays s; the loss divides by the scale of a head that learns its own. Classes that the loader
    does not deliver have no margin."""

    Config = LDAMDRWConfig
    version: ClassVar[int] = 2  # the scale rests
    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"cosine"})
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Cao et al., NeurIPS 2019"
    cfg: LDAMDRWConfig

    def design(self, spec: NetSpec) -> NetSpec:
        if spec.head.kind != "linear":
            return spec
        return spec.with_head("cosine", scale=self.cfg.scale, fixed=True)

    def criterion(self, inner: Criterion) -> Criterion:
        def with_margins(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            assert self.tools.net is not None
            own_scale: Tensor = self.tools.net.head.scale  # type: ignore[assignment]
            counts, ids = batch.counts[classes], targets - (classes.start or 0)
            margins = ldam_margins(counts, self.cfg.margin)
            shifted = logits / own_scale - F.one_hot(ids, logits.shape[1]) * margins
            losses = inner(batch, self.cfg.scale * shifted, targets, classes)
            if batch.progress < self.cfg.start:
                return losses
            return weighted(losses, effective_number_weights(counts, self.cfg.beta), ids)

        return with_margins


def ldam_margins(counts: Tensor, largest: float) -> Tensor:
    """Margins [K] in proportion to n^(-1/4), the largest as given; zero for a class without a row."""
    margins = counts.clamp(min=1).pow(-0.25) * (counts > 0)
    return largest * margins / margins.max().clamp(min=1e-12)
