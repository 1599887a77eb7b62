"""FOSTER: a second backbone fits what the old model lacks, then both are compressed into one (Wang et al., ECCV 2022)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Group, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import knowledge_distillation, require_same_shape
from imbcil.harness.network.network import Network, clone, freeze

Share = Annotated[float, Field(ge=0, lt=1)]
HALF_BASE = (0.94,)
AUTHORS = {  # beta1 by new classes of a phase, on CIFAR-100
    5: (0.96,),
    10: (0.98, 0.975, 0.97, 0.965, 0.96, 0.955, 0.95, 0.945, 0.94),
    20: (0.97, 0.96, 0.95, 0.94),
}


class FOSTERConfig(LearnerConfig):
    """`beta1`: of the logit alignment in boosting, one value per phase after the first, the last for all that follow;
    unset, the authors' for a half base or for the number of new classes in a phase (`AUTHORS`). `beta2`: of the
    balanced distillation. 0 switches either off. `distillation`: weight of the old logits' distillation. Compression
    takes `compression_share` of the recipe's epochs at weight decay `compression_decay`."""

    beta1: Annotated[tuple[Share, ...], Field(min_length=1)] | None = None
    beta2: Share = 0.97
    distillation: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    compression_share: float = Field(default=130 / 170, gt=0)
    compression_decay: float = Field(default=0.0, ge=0)


class FOSTER(Learner):
    """Predictors: "fc", the compressed network, which is the next phase's old one; "fc_boosted", both backbones (never
    ranked: twice the parameters; "FOSTER B4" elsewhere, and what PyCIL logs). Exemplars are herded on the
    concatenated features. Class counts are true ones, where PyCIL writes 500.

    No long-tailed settings were published: both presets are the authors' losses and constants on the recipe's epochs
    and schedule, own construction for the poster's row. Its augmentation is unknown: docs/poster.md.
    """

    title = "FOSTER"
    version = 2  # beta1 follows the protocol
    Config = FOSTERConfig
    needs = Needs(
        head=frozenset({"linear"}), criterion="a softmax aligned by its own class counts", teacher=True
    )
    unranked = ("fc_boosted",)
    cfg: FOSTERConfig

    def begin_phase(self, phase: Phase) -> None:
        if phase.index:
            self.state.pop("boosted", None)
            self.net.add_backbone(aux=phase.hi)
        super().begin_phase(phase)

    def stages(self, phase: Phase) -> list[Stage]:
        pool, optim, share = phase.memory + phase.new, self.cfg.train, self.cfg.compression_share
        if not phase.index:
            return [Stage("train", pool, optim)]
        short = optim.shortened(share, weight_decay=self.cfg.compression_decay)
        newest = Group("backbones.-1", "head", "aux")
        return [
            Stage("boost", pool, optim, (newest,)),
            Stage("compress", pool, short, begin=self.start_compression, loss=self.compression),
        ]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        if "old" not in self.state:
            return {"ce": self.classify(batch, out.logits).mean()}
        old = self.old_logits(out)
        weights = count_weights(batch.counts, self.beta1())
        kd = knowledge_distillation(out.logits[:, : old.shape[1]], old, self.cfg.temperature)
        return {
            "ce": self.classify(batch, out.logits / weights).mean(),
            "aux": self.classify(batch, out.extras["aux"]).mean(),
            "kd": self.cfg.distillation * kd,
        }

    def beta1(self) -> float:
        """Of this phase, the second or later."""
        head, values = self.net.head, self.cfg.beta1
        if values is None:
            nearest = min(AUTHORS, key=lambda size: abs(size - head.splits[1]))
            values = HALF_BASE if head.half_base else AUTHORS[nearest]
        return values[min(len(head.splits) - 2, len(values) - 1)]

    @torch.no_grad()
    def old_logits(self, out: Outputs) -> Tensor:
        """The old model's logits [B, K_old]: its backbone is the first of the two and frozen, so its features are there
        already."""
        old: Network = self.state["old"]
        features = out.features[:, : old.dim]
        return old.calibrated(Outputs(old.head(features, [])["logits"], features), "teacher")

    def start_compression(self) -> None:
        """The student: the old network, grown by the new classes."""
        classes = self.net.head.splits[-1]
        self.state["boosted"] = freeze(self.net)
        student = clone(self.state["old"]).requires_grad_(True)
        student.grow(classes)
        self.state["net"] = student

    def compression(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        boosted = self.teacher_outputs(batch, "boosted")
        assert boosted is not None
        weights = count_weights(batch.counts, self.cfg.beta2)
        return {"bkd": balanced_distillation(out.logits, boosted.logits, weights, self.cfg.temperature)}

    def end_phase(self, phase: Phase) -> None:
        sweep = None
        if "boosted" in self.state and not self.memory.settings.empty:
            sweep = self.tools.sweep(phase.memory + phase.new, net=self.state["boosted"])
        self.keep_exemplars(phase, sweep)
        self.freeze_teacher()

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        fc = self.net.calibrated(self.net(images), "test")
        boosted = self.state["boosted"](images).logits if "boosted" in self.state else fc
        return {"fc": fc, "fc_boosted": boosted}


def count_weights(counts: Tensor, beta: float) -> Tensor:
    """One over the effective number of each class's rows, (1 - beta) / (1 - beta^n), scaled to sum to K [K].

    A class without a row counts as one. Wang et al. 2022, sec. 3.3 (Cui et al. 2019), in the form of their code.
    """
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1))
    return weights * (len(counts) / weights.sum())


def balanced_distillation(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the softened student against the softened teacher, whose probabilities [B, K] are weighted by
    class and normalised again; batch mean. Wang et al. 2022, eq. 10."""
    require_same_shape(student=student, teacher=teacher)
    target = F.normalize(F.softmax(teacher.detach() / temperature, dim=1) * weights, p=1, dim=1)
    return -(target * F.log_softmax(student / temperature, dim=1)).sum(dim=1).mean()
