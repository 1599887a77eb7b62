"""Balanced softmax: the log of each class's share of the pool is added to its logit in training (Ren et al. 2020)."""

from typing import ClassVar

from torch import Tensor

from imbcil.harness.contract import Batch, Criterion, Plugin


class BalancedSoftmax(Plugin):
    """Cross-entropy of z + log n_c over the classes in question; scores stay raw."""

    slots: ClassVar[tuple[str, ...]] = ("criterion",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Ren et al., NeurIPS 2020, eq. 4"

    def criterion(self, inner: Criterion) -> Criterion:
        def balanced(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            counts = batch.counts[classes].clamp(min=1)  # a class without a row competes as if it had one
            return inner(batch, logits + (counts / counts.sum()).log(), targets, classes)

        return balanced
