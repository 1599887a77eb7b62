"""MAFDRC: adapt a copy to the new data, fuse old and adapted teachers into one student whose classifier has an old and
a new branch (Chen & Chang, ICCV 2023)."""

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import (
    Batch,
    Group,
    Learner,
    LearnerConfig,
    Needs,
    NetSpec,
    Outputs,
    Phase,
    Stage,
)
from imbcil.harness.losses import knowledge_distillation, pod_spatial
from imbcil.harness.network.heads import BranchHead
from imbcil.harness.network.network import freeze


class MAFDRCConfig(LearnerConfig):
    """`branches` (alpha): share of the branches' own cross-entropy; the rest goes to the adjusted one. `old`, `new`:
    weights of the two distillations. `tau`: strength of the class prior. `pod`: weight of the maps' distillation,
    times sqrt(K / K_new); by default for half-base protocols alone, told by a first phase at least twice as large as
    the second. The shares are epochs of adaptation and fusion in the recipe's. `first_teacher`: at the first
    increment the old teacher answers with the branch it was trained with, or with "both" (the released code)."""

    branches: float = Field(default=0.2, ge=0, le=1)
    old: float = Field(default=4.0, ge=0)
    new: float = Field(default=1.0, ge=0)
    tau: float = Field(default=1.2, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    pod: float = Field(default=5.0, ge=0)
    pod_when: Literal["half-base", "always", "never"] = "half-base"
    adaptation_share: float = Field(default=70 / 200, gt=0)
    fusion_share: float = Field(default=130 / 200, gt=0)
    fusion_decay: float = Field(default=0.0, ge=0)
    first_teacher: Literal["as-trained", "both"] = "as-trained"


class MAFDRC(Learner):
    """Predictor "fc": both branches, unadjusted. Exemplars are herded on the features before the branches.

    No long-tailed settings were published: both presets are the authors' losses and constants on the recipe's epochs
    and schedule, own construction for the poster's row; `released` keeps the untrained branch of the first teacher.
    See docs/poster.md.
    """

    title = "MAFDRC"
    Config = MAFDRCConfig
    needs = Needs(
        head=frozenset({"branches"}), criterion="a softmax adjusted by its own class prior", teacher=True
    )
    presets = {"released": {"first_teacher": "both"}, "sound": {}}
    cfg: MAFDRCConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_head("branches")

    def begin_phase(self, phase: Phase) -> None:
        if phase.index:
            _head(self).merge()
            if self.cfg.first_teacher == "both":
                self.state["old"].head.gate.fill_(1.0)
        super().begin_phase(phase)

    def stages(self, phase: Phase) -> list[Stage]:
        groups, live = (Group("all", "-head.old_branch"),), ("head.old_branch",)
        pool, optim = phase.memory + phase.new, self.cfg.train
        if not phase.index:
            return [Stage("train", pool, optim, groups, live=live)]
        adapt = optim.shortened(self.cfg.adaptation_share)
        fuse = optim.shortened(self.cfg.fusion_share, weight_decay=self.cfg.fusion_decay)
        return [
            Stage("adapt", phase.new, adapt, groups, loss=self.adaptation, live=live),
            Stage("fuse", pool, fuse, groups, loss=self.fusion, begin=self.keep_adapted, live=live),
        ]

    def adaptation(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"ce": self.classify(batch, out.logits, classes=self.net.head.slices()[-1]).mean()}

    def keep_adapted(self) -> None:
        self.state["adapted"] = freeze(self.net)

    def fusion(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        cfg, t = self.cfg, self.cfg.temperature
        old, adapted = self.teacher_outputs(batch), self.teacher_outputs(batch, "adapted")
        assert old is not None and adapted is not None
        n_old = old.logits.shape[1]
        adjusted = out.logits + cfg.tau * log_share(batch.counts)
        ce = self.classify(batch, adjusted).mean()
        own = branch_loss(out.extras["old"], out.extras["new"], batch.targets, n_old)
        terms = {
            "branches": cfg.branches * own,
            "ce": (1 - cfg.branches) * ce,
            "kd_old": cfg.old * knowledge_distillation(adjusted[:, :n_old], old.logits, t),
            "kd_new": cfg.new * knowledge_distillation(adjusted[:, n_old:], adapted.logits[:, n_old:], t),
        }
        if self.distils_maps():
            growth = math.sqrt(out.logits.shape[1] / (out.logits.shape[1] - n_old))
            terms["pod"] = cfg.pod * growth * pod_spatial(out.maps, old.maps)
        return terms

    def distils_maps(self) -> bool:
        when = self.cfg.pod_when
        return when == "always" or (when == "half-base" and self.net.head.half_base)

    def end_phase(self, phase: Phase) -> None:
        self.state.pop("adapted", None)
        super().end_phase(phase)


def _head(learner: Learner) -> BranchHead:
    head = learner.net.head
    assert isinstance(head, BranchHead)
    return head


def log_share(counts: Tensor) -> Tensor:
    """Log of each class's share of the rows [K]; a class without a row counts as one."""
    return (counts.clamp(min=1) / counts.clamp(min=1).sum()).log()


def branch_loss(old: Tensor, new: Tensor, targets: Tensor, n_old: int) -> Tensor:
    """Cross-entropy of the old branch on samples of old classes and of the new branch on all of them, over the number
    of both (the authors' L_ice)."""
    is_old = (targets < n_old).to(old.dtype)
    total = (F.cross_entropy(old, targets, reduction="none") * is_old).sum()
    return (total + F.cross_entropy(new, targets, reduction="sum")) / (is_old.sum() + len(targets))
