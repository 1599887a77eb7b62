"""BiC: distillation, then a two-number correction of the newest logits on held-out rows (Wu et al., CVPR 2019)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import (
    Batch,
    Learner,
    LearnerConfig,
    Needs,
    NetSpec,
    Optimisation,
    Outputs,
    Phase,
    Pool,
    Stage,
)
from imbcil.harness.losses import proportioned
from imbcil.harness.network.calibration import CalibratorSpec, Where
from imbcil.harness.stages import Group


class BiCConfig(LearnerConfig):
    """`corrections`: "per_task", each task keeps its (alpha, beta), applied to student and teacher everywhere
    (FACIL, PyCIL); "latest", the authors': only the newest task's exists, at test and in the next teacher.
    `held_out`: share of a class's exemplars, rounded up, that the correction learns from; it counts as memory.
    `bias_epochs`: of the second stage at `bias_lr`; unset, as many as the first has, on its schedule.
    `beta_penalty`: weight of beta^2 / 2."""

    temperature: float = Field(default=2.0, gt=0)
    corrections: Literal["per_task", "latest"] = "per_task"
    held_out: float = Field(default=0.1, gt=0, lt=1)
    bias_epochs: int | None = Field(default=None, ge=0)
    bias_lr: float = Field(default=0.1, ge=0)
    beta_penalty: float = Field(default=0.1, ge=0)


class BiC(Learner):
    """Predictor: "fc", the corrected linear head: z for old classes, alpha z + beta for a corrected task (eq. 4).
    The correction is trained with one softmax, the network in evaluation mode (eq. 5); its
    rows are augmented as all training rows are. With several labels an image (mask_current, capture_only), every loss
    is binary cross-entropy over visible cells, distillation a sigmoid a class; a reading of our own.

    The poster's row used `released`: 200 epochs for the correction, as Long-Tailed-CIL and FACIL have it. They
    hold the same rows out from a class's first phase on; here they are drawn anew. See docs/poster.md.
    """

    title = "BiC"
    version = 2  # fitted without a plug-in's scales
    Config = BiCConfig
    needs = Needs(labels=frozenset({"single", "multi"}), memory="required", teacher=True)
    presets = {"released": {"bias_epochs": 200}, "sound": {}}
    cfg: BiCConfig

    def design(self, spec: NetSpec) -> NetSpec:
        always: tuple[Where, ...] = ("train", "teacher", "test")
        active = always if self.cfg.corrections == "per_task" else always[1:]
        return spec.with_calibrator("bic", CalibratorSpec(tie="phase", active=active))

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if self.cfg.corrections == "latest":
            self.net.calibrator("bic").set(torch.ones(phase.hi), torch.zeros(phase.hi))

    def stages(self, phase: Phase) -> Sequence[Stage]:
        if not phase.index:
            return super().stages(phase)
        train, held = self.split(phase)
        return [
            Stage("train", train, self.cfg.train),
            Stage(
                "bias", held, self.bias_optimisation(), (Group("calibrators.bic.new"),), loss=self.bias_loss
            ),
        ]

    def split(self, phase: Phase) -> tuple[Pool, Pool]:
        """(training, held-out) rows: the same number from every class, but never more than half of its rows.
        The key is the same in all phases, so that exemplars which keep their order keep their part."""
        wanted = math.ceil(self.cfg.held_out * self.memory.quota(phase.lo))

        def count(label: int, rows: int) -> int:
            return min(wanted, rows // 2)

        old, old_held = phase.memory.split(count, self.tools.gen("held out", "memory"))
        new, new_held = phase.new.split(count, self.tools.gen("held out", "new"))
        return old + new, (old_held + new_held if len(old_held) else Pool.empty())

    def bias_optimisation(self) -> Optimisation:
        own: dict[str, Any] = {"lr": self.cfg.bias_lr, "weight_decay": 0.0}
        if self.cfg.bias_epochs is not None:
            own |= {"epochs": self.cfg.bias_epochs, "schedule": "constant", "milestones": ()}
        return Optimisation(**{**dict(self.cfg.train), **own})

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        logits = self.net.calibrated(out, "train")
        ce = self.classification_loss(batch, logits)
        return proportioned(ce, logits, self.teacher_logits(batch), self.cfg.temperature, self.multi)

    def bias_loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        beta = self.net.calibrator("bic").vectors()[1][-1]
        corrected = self.net.calibrated(out, "teacher")  # a plug-in's scales act in tests alone
        ce = self.classification_loss(batch, corrected)
        return {"bias_ce": ce, "beta": self.cfg.beta_penalty * beta.square() / 2}

    def end_phase(self, phase: Phase) -> None:
        for name, values in zip(("alpha", "beta"), self.net.calibrator("bic").vectors(), strict=True):
            self.tools.log(name, float(values[-1].detach()))
        super().end_phase(phase)
