"""Classifier re-training (cRT): a fresh head on frozen features and class-balanced draws (Kang et al. 2020)."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Batch, Group, Learner, Optimisation, Outputs, Phase, Plugin, Stage
from imbcil.harness.samplers import ClassAware


class CRTConfig(Frozen):
    """`per`: rows of each class that is drawn. `milestones`: epochs; the rate falls tenfold at each. Momentum (Nesterov's
    where the recipe has it) and batch are the learner's."""

    epochs: int = Field(default=30, ge=1)
    lr: float = Field(default=0.1, gt=0)
    milestones: tuple[int, ...] = (10, 20)
    weight_decay: float = Field(default=5e-4, ge=0)
    per: int = Field(default=4, ge=1)


class CRT(Plugin):
    """A last stage in every phase; epochs, rate, decay and milestones are Bag of Tricks' for CIFAR. The blocks of the
    head whose classes have a row at hand are drawn anew and trained; the others rest."""

    Config = CRTConfig
    version: ClassVar[int] = 2  # the learner's kind of momentum
    slots: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"linear", "cosine"})
    source: ClassVar[str] = "Kang et al., ICLR 2020"
    cfg: CRTConfig

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        if not stages:
            return stages
        for stage in stages:
            if stage.owner != "learner" and fits_scales(stage):
                raise BadInput(
                    f"{self.name} draws the head anew after {stage.owner} has fitted scales to it; write {self.name} before "
                    f"{stage.owner}, or leave one of them out."
                )
        pool, cfg = learner.rows_at_hand(phase), self.cfg
        counts = pool.counts(phase.hi)
        blocks = [
            number for number, classes in enumerate(learner.net.head.slices()) if bool(counts[classes].any())
        ]
        first = stages[0].optim
        optim = Optimisation(
            epochs=cfg.epochs, batch=first.batch, lr=cfg.lr, momentum=first.momentum, nesterov=first.nesterov,
            weight_decay=cfg.weight_decay, schedule="multistep", milestones=cfg.milestones,
        )  # fmt: skip
        last = Stage(
            "crt", pool, optim, (Group(*(f"head.{number}" for number in blocks)),), sampler=ClassAware(per=cfg.per),
            loss=partial(cross_entropy, learner), begin=partial(redraw, learner, blocks),
        )  # fmt: skip
        return [*stages, last]


def redraw(learner: Learner, blocks: Sequence[int]) -> None:
    """Fresh values for these blocks of the head."""
    for number in blocks:
        learner.net.head.blocks[number].reset()  # type: ignore[operator]


def fits_scales(stage: Stage) -> bool:
    """Whether a stage trains a calibrator, which belongs to the head of that moment."""
    return any(word.startswith("calibrators.") for group in stage.train for word in group.select)


def cross_entropy(learner: Learner, batch: Batch, out: Outputs) -> dict[str, Tensor]:
    """Plain, since the sampler has balanced the classes already, and under a learner's own correction of its logits."""
    return {"ce": F.cross_entropy(learner.net.calibrated(out, "teacher"), batch.targets)}
