"""LUCIR: cosine classifier, feature distillation, margin ranking against new classes (Hou et al., CVPR 2019)."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.balanced import exemplars_to_be
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
from imbcil.harness.losses import cosine_distance
from imbcil.harness.nearest_mean import class_means, keep_with_means, nearest_mean


class LUCIRConfig(LearnerConfig):
    """`distillation`: lambda_base, times sqrt(K_old / K_new); 5 on CIFAR, 10 on ImageNet. `margin`, `hardest`,
    `ranking`: of the ranking loss, its number of new classes and its weight. `imprint`: new rows start at the class's
    mean feature (the authors' code; Long-Tailed-CIL leaves it out). `finetune_share`: epochs, as a share of the
    recipe's, of a stage on the coming exemplars, the head's rows alone at a tenth of the learning rate, from its half on
    a hundredth; the authors have it for ImageNet alone (20 of 90)."""

    distillation: float = Field(default=5.0, ge=0)
    margin: float = 0.5
    hardest: int = Field(default=2, ge=1)
    ranking: float = Field(default=1.0, ge=0)
    imprint: bool = True
    finetune_share: float = Field(default=0.0, ge=0)


class LUCIR(Learner):
    """Predictors: "fc", the cosine head; "nme", nearest mean of exemplars. The last ReLU is left out, so that features
    are signed; old rows rest bit for bit, the scale is shared and learns.

    The poster's row is `lucir+two_stage` with `released`; see docs/poster.md. The paper's numbers are `sound`.
    """

    title = "LUCIR"
    Config = LUCIRConfig
    needs = Needs(head=frozenset({"cosine"}), teacher=True, hard_labels="its margin ranking")
    presets = {"released": {"imprint": False}, "sound": {}}
    cfg: LUCIRConfig

    @classmethod
    def version_with(cls, cfg: LUCIRConfig) -> int:
        return 2 if cfg.finetune_share else cls.version  # rows, loss and rate of that stage are the authors'

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_head("cosine").with_backbones(last_relu=False)

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if phase.index and self.cfg.imprint:
            features = self.tools.sweep(phase.new).features
            means = class_means([features], phase.new.quota - phase.lo, phase.hi - phase.lo)
            self.net.head.imprint(means)

    def stages(self, phase: Phase) -> list[Stage]:
        pool, optim, share = phase.memory + phase.new, self.cfg.train, self.cfg.finetune_share
        stages = [Stage("train", pool, optim, (Group("all", "-head.old"),))]
        if phase.index and share:
            short = optim.shortened(share, lr=optim.lr / 10, schedule="multistep", milestones=())
            halves = short.model_copy(update={"milestones": (math.ceil(short.epochs / 2),)})
            few, rows = partial(exemplars_to_be, self, phase), (Group("head", "-head.scale"),)
            stages.append(Stage("classifier", few, halves, rows))
        return stages

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = {"ce": self.classify(batch, out.logits).mean()}
        teacher = self.teacher_outputs(batch)
        if teacher is None:
            return terms
        cosines = out.extras["cos"]
        n_old = teacher.logits.shape[1]
        growth = math.sqrt(n_old / (cosines.shape[1] - n_old))
        forget = self.cfg.distillation * growth * cosine_distance(out.features, teacher.features)
        ranking = margin_ranking(cosines, batch.targets, n_old, self.cfg.margin, self.cfg.hardest)
        return {**terms, "forget": forget, "ranking": self.cfg.ranking * ranking}

    def end_phase(self, phase: Phase) -> None:
        keep_with_means(self, phase)
        self.freeze_teacher()

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        out = self.net(images)
        return {"fc": self.net.calibrated(out, "test"), **nearest_mean(self, out)}


def margin_ranking(cosines: Tensor, targets: Tensor, n_old: int, margin: float, hardest: int) -> Tensor:
    """max(0, margin - cos_y + cos_k) over samples of old classes and each one's `hardest` new classes, their mean;
    0 without an old sample. cosines [B, K] are unscaled. Hou et al. 2019, eq. 8."""
    new = cosines[:, n_old:]
    rivals = new.topk(min(hardest, new.shape[1]), dim=1).values
    own = cosines.gather(1, targets.unsqueeze(1))
    is_old = (targets < n_old).to(cosines.dtype)
    losses = F.relu(margin - own + rivals).mean(dim=1)
    return torch.dot(losses, is_old) / is_old.sum().clamp(min=1)
