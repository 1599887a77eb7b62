"""Learnable weight scaling (LWS): one scale a class on frozen scores, class-balanced draws (Kang et al. 2020)."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import (
    Batch,
    Group,
    Learner,
    NetSpec,
    Optimisation,
    Outputs,
    Phase,
    Plugin,
    Stage,
)
from imbcil.harness.network.calibration import CalibratorSpec
from imbcil.harness.samplers import ClassAware


class LWSConfig(Frozen):
    """`per`: rows of each class that is drawn. Momentum (Nesterov's where the recipe has it) and batch are the
    learner's, the schedule is a cosine."""

    epochs: int = Field(default=5, ge=1)
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    per: int = Field(default=4, ge=1)


class LWS(Plugin):
    """Scores f_c z_c, bias included, with f_c free and 1 at the start of every phase's last stage; backbone and head
    rest. The learner's losses and its teacher never see the scales. `two_stage` is the form for several phases."""

    Config = LWSConfig
    version: ClassVar[int] = 2  # the learner's kind of momentum
    slots: ClassVar[tuple[str, ...]] = ("calibrator",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"linear"})
    source: ClassVar[str] = "Kang et al., ICLR 2020"
    cfg: LWSConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_calibrator("lws", CalibratorSpec(active=("test",)))

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        if not stages:
            return stages
        first, cfg = stages[0].optim, self.cfg
        optim = Optimisation(
            epochs=cfg.epochs, batch=first.batch, lr=cfg.lr, momentum=first.momentum, nesterov=first.nesterov,
            weight_decay=cfg.weight_decay, schedule="cosine",
        )  # fmt: skip
        last = Stage(
            "lws", learner.rows_at_hand(phase), optim, (Group("calibrators.lws.*.a"),),
            sampler=ClassAware(per=cfg.per), loss=partial(scaled_cross_entropy, learner), begin=partial(restart, learner),
        )  # fmt: skip
        return [*stages, last]


def restart(learner: Learner) -> None:
    """All scales 1."""
    learner.net.calibrator("lws").set(a=torch.ones(learner.net.n_classes))


def scaled_cross_entropy(learner: Learner, batch: Batch, out: Outputs) -> dict[str, Tensor]:
    return {"ce": F.cross_entropy(learner.net.calibrated(out, "test"), batch.targets)}
