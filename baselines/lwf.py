"""LwF: learning without forgetting, distillation on new images alone (Li & Hoiem, ECCV 2016)."""

from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import knowledge_distillation


class LwFConfig(LearnerConfig):
    """`distillation`: weight of the teacher's term; 3 in PyCIL, 1 in FACIL and Long-Tailed-CIL."""

    distillation: float = Field(default=3.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)


class LwF(Learner):
    """Predictor: "fc". Cross-entropy over the phase's own classes, distillation over all older ones; no memory.

    No row of the poster; `sound` is PyCIL's (43 / 23 on balanced CIFAR-100 in ten phases), `released` the weight
    of Long-Tailed-CIL, whose users report far less. See docs/poster.md.
    """

    title = "LwF"
    Config = LwFConfig
    needs = Needs(memory="none", teacher=True)
    presets = {"released": {"distillation": 1.0}, "sound": {}}
    cfg: LwFConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = {"ce": self.classify(batch, out.logits, classes=self.net.head.slices()[-1]).mean()}
        if (old := self.teacher_logits(batch)) is None:
            return terms
        kd = knowledge_distillation(out.logits[:, : old.shape[1]], old, self.cfg.temperature)
        return {**terms, "kd": self.cfg.distillation * kd}
