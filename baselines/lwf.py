"""LwF: learning without forgetting, distillation on new images alone (Li & Hoiem, ECCV 2016)."""

from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import distillation


class LwFConfig(LearnerConfig):
    """`distillation`: weight of the teacher's term; 3 in PyCIL, 1 in FACIL and Long-Tailed-CIL."""

    distillation: float = Field(default=3.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)


class LwF(Learner):
    """Predictor: "fc". Cross-entropy over the phase's own classes, distillation over all older ones; no memory.
    With several labels an image: binary cross-entropy over the visible columns (mask_current) and a sigmoid a class
    against the teacher's, times T^2, as multi-label ports have it (weight 3, T 1; elsewhere weight 1, T 2).

    No row of the poster; `sound` is PyCIL's (43 / 23 on balanced CIFAR-100 in ten phases), `released` the weight
    of Long-Tailed-CIL, whose users report far less. See docs/poster.md.
    """

    title = "LwF"
    Config = LwFConfig
    needs = Needs(labels=frozenset({"single", "multi"}), memory="none", teacher=True)
    presets = {"released": {"distillation": 1.0}, "sound": {}}
    cfg: LwFConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = {"ce": self.own_classes(batch, out.logits)}
        if (old := self.teacher_logits(batch)) is None:
            return terms
        kd = distillation(out.logits[:, : old.shape[1]], old, self.cfg.temperature, self.multi)
        return {**terms, "kd": self.cfg.distillation * kd}
