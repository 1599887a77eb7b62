"""SS-IL: separated softmax, batches of a fixed new-to-old ratio, distillation per task (Ahn et al., ICCV 2021)."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import task_distillation
from imbcil.harness.samplers import Streams


class SSILConfig(LearnerConfig):
    """`ratio`: new over old images in a batch (128 + 32). `normalisation` of the two cross-entropies: "joint"
    divides both by the whole batch and multiplies distillation by T^2 (the authors); "separate" adds two means,
    so that an exemplar weighs `ratio` times as much, without T^2 (Long-Tailed-CIL). `drop_last`: leave out the
    last partial batch of new data after the first phase; a task with fewer images than a batch then trains
    nothing."""

    ratio: float = Field(default=4.0, gt=0)
    distillation: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    normalisation: Literal["joint", "separate"] = "joint"
    drop_last: bool = False


class SSIL(Learner):
    """Predictor: "fc", the plain linear head over all classes. New images compete among new classes alone,
    exemplars among old ones; every old task is distilled on its own slice.

    The poster's row used `released`, which is Long-Tailed-CIL's port; the learning rate falls over tasks in
    the authors' code only (0.1 / (t + 1)), and in neither preset. See docs/poster.md.
    """

    title = "SSIL"
    version = 2  # the other rows of a batch have no part in a plug-in's class weights
    Config = SSILConfig
    needs = Needs(sampler="own", memory="required", teacher=True, hard_labels="its separated softmax")
    presets = {"released": {"normalisation": "separate", "drop_last": True}, "sound": {}}
    cfg: SSILConfig

    def stages(self, phase: Phase) -> Sequence[Stage]:
        sampler = Streams(ratio=self.cfg.ratio, drop_last=self.cfg.drop_last and phase.index > 0)
        return [Stage("train", phase.memory + phase.new, self.cfg.train, sampler=sampler)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        old = self.teacher_logits(batch)
        *tasks, newest = self.net.head.slices()
        if old is None:
            return {"ce": self.classify(batch, out.logits).mean()}
        is_new = batch.slot < 0  # on the CPU: choosing rows does not wait for the device
        terms = {
            "ce_new": self.sliced(batch, out.logits, newest, is_new),
            "ce_old": self.sliced(batch, out.logits, slice(0, newest.start), ~is_new),
        }
        kd = task_distillation(out.logits, old, tasks, self.cfg.temperature)
        squared = self.cfg.temperature**2 if self.cfg.normalisation == "joint" else 1.0
        return {**terms, "kd": self.cfg.distillation * squared * kd}

    def sliced(self, batch: Batch, logits: Tensor, classes: slice, chosen: Tensor) -> Tensor:
        """Cross-entropy over `classes` on the chosen rows [B] alone: a plug-in's class weights are scaled over them."""
        rows = torch.nonzero(chosen).flatten().to(logits.device)
        total = self.classify(batch, logits[rows], batch.targets[rows], classes).sum()
        if self.cfg.normalisation == "joint":
            return total / len(chosen)
        return total / max(len(rows), 1)
