"""iCaRL: exemplar replay, distillation, nearest-mean classifier (Rebuffi et al., CVPR 2017)."""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import (
    Batch,
    Learner,
    LearnerConfig,
    Needs,
    Optimisation,
    Outputs,
    Phase,
    Stage,
)
from imbcil.harness.losses import knowledge_distillation, sigmoid_distillation, soft_bce
from imbcil.harness.nearest_mean import keep_with_means, nearest_mean


class ICaRLConfig(LearnerConfig):
    """`old_loss`: "ce+kd", softmax distillation (PyCIL); "ce+sum-bce", sigmoids summed over old classes
    (Long-Tailed-CIL); "bce", the paper's: sigmoids on all units, the teacher's on old ones (alg. 3).
    `schedule` "plateau": the learning rate follows the phase's hold-out loss with `patience` epochs (a reduced recipe
    divides them as all others), as Long-Tailed-CIL does for this method alone; a phase without a hold-out keeps the
    recipe's. `flip_means`: class means over mirrored images too (the paper)."""

    old_loss: Literal["ce+kd", "ce+sum-bce", "bce"] = "ce+kd"
    distillation: float = Field(default=1.0, ge=0)  # weight of the old classes' loss
    temperature: float = Field(default=2.0, gt=0)
    schedule: Literal["recipe", "plateau"] = "recipe"
    patience: int = Field(default=5, ge=1)
    lr_min: float = Field(default=1e-4, ge=0)
    flip_means: bool = False


class ICaRL(Learner):
    """Predictors: "nme" (primary), minus the squared distance to the class means; "fc", the linear head.
    Without a memory there are no means, and "fc" is all there is. With several labels an image, where a nearest mean
    has no direct meaning, it is binary cross-entropy over visible cells and the teacher's sigmoids over old classes
    with herded exemplars (mask_current, capture_only), and "fc" alone.

    The poster's row used `released`; see docs/poster.md.
    """

    title = "iCaRL"
    Config = ICaRLConfig
    needs = Needs(labels=frozenset({"single", "multi"}), teacher=True)
    presets = {"released": {"old_loss": "ce+sum-bce", "schedule": "plateau"}, "sound": {}}
    cfg: ICaRLConfig

    @classmethod
    def version_with(cls, cfg: ICaRLConfig) -> int:
        return 2 if cfg.schedule == "plateau" else cls.version  # reduced recipes divide its patience

    @classmethod
    def needs_with(cls, cfg: ICaRLConfig) -> Needs:
        own = "the paper's sigmoids on all units, old_loss = bce"
        return replace(cls.needs, criterion=own) if cfg.old_loss == "bce" else cls.needs

    def stages(self, phase: Phase) -> list[Stage]:
        pool, optim = phase.memory + phase.new, self.cfg.train
        held = phase.holdout[phase.holdout.quota >= phase.lo]
        if self.cfg.schedule == "recipe" or not len(held):
            return [Stage("train", pool, optim)]
        patience = {
            "schedule": "plateau",
            "milestones": (),
            "warmup": 0,
            "patience": self.cfg.patience,
            "lr_min": self.cfg.lr_min,
        }
        return [Stage("train", pool, Optimisation(**{**dict(optim), **patience}), val=held)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        old = self.teacher_logits(batch)
        if self.multi:
            return self.multi_label_loss(batch, out.logits, old)
        if self.cfg.old_loss == "bce":
            return {"bce": self.sigmoid_loss(batch, out.logits, old)}
        terms = {"ce": self.classify(batch, out.logits).mean()}
        if old is None:
            return terms
        student = out.logits[:, : old.shape[1]]
        if self.cfg.old_loss == "ce+kd":
            kd = knowledge_distillation(student, old, self.cfg.temperature)
        else:
            kd = sigmoid_distillation(student, old)
        return {**terms, "kd": self.cfg.distillation * kd}

    def multi_label_loss(self, batch: Batch, logits: Tensor, old: Tensor | None) -> dict[str, Tensor]:
        """Binary cross-entropy over visible cells and the teacher's sigmoids over old classes."""
        terms = {"ce": self.classification_loss(batch, logits)}
        if old is None:
            return terms
        return {**terms, "kd": self.cfg.distillation * soft_bce(logits[:, : old.shape[1]], old)}

    def sigmoid_loss(self, batch: Batch, logits: Tensor, old: Tensor | None) -> Tensor:
        """Binary cross-entropy over all units, summed over units, batch mean: old units follow the teacher's
        sigmoids, new ones the labels; exemplars get no hard label on old units."""
        targets = F.one_hot(batch.targets, logits.shape[1]).float()
        if old is not None:
            targets = torch.cat([old.sigmoid(), targets[:, old.shape[1] :]], dim=1)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()

    def end_phase(self, phase: Phase) -> None:
        if self.multi:
            self.keep_exemplars(phase)
        else:
            keep_with_means(self, phase, flip=self.cfg.flip_means)
        self.freeze_teacher()

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        out = self.net(images)
        return {**nearest_mean(self, out), "fc": self.net.calibrated(out, "test")}
