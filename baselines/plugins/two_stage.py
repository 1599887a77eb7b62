"""Two-stage training: a last stage fits the newest head rows and a scale for every class (Liu et al., ECCV 2022)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

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


class TwoStageConfig(Frozen):
    """`weight_decay`: of the scales; unset, the learner's own, which the head's rows have in any case and which pulls
    the scales towards 0 (Long-Tailed-CIL). `per`: rows of each class that is drawn. `quirks`: Long-Tailed-CIL's
    exceptions: one epoch beside EEIL, and beside LUCIR no training before this stage in a phase of at most ten images
    a class."""

    epochs: int = Field(default=30, ge=0)
    lr: float = Field(default=0.1, ge=0)
    weight_decay: float | None = Field(default=0.0, ge=0)
    per: int = Field(default=4, ge=1)
    clip_norm: float = Field(default=1e4, gt=0)
    quirks: bool = False


class TwoStage(Plugin):
    """Learnable weight scaling (LWS): scores are s_c z_c with one s_c a class, 1 at first, kept for good and used
    in every later evaluation, never in the learner's own losses and never by its teacher.

    The stage follows the learner's in every phase: backbone and old rows frozen and in evaluation mode,
    cross-entropy over all classes, rows drawn class by class. The poster's rows eeil, lucir and podnet
    + two_stage used `released`; foster+two_stage is an own construction. See docs/poster.md.
    """

    Config = TwoStageConfig
    version: ClassVar[int] = 2  # the head's rows keep their weight decay where the scales have none
    slots: ClassVar[tuple[str, ...]] = ("calibrator",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"linear", "cosine", "proxy"})
    source: ClassVar[str] = "Liu et al., ECCV 2022, two-stage method with LWS"
    presets = {"released": {"weight_decay": None, "quirks": True}, "sound": {}}
    cfg: TwoStageConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_calibrator("lws", CalibratorSpec(active=("test",)))

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        if not stages:
            return stages
        first = stages[0].optim
        scales = Group("calibrators.lws.*.a", wd=self.cfg.weight_decay, schedule=scale_schedule)
        optim = Optimisation(
            epochs=1 if self.cfg.quirks and learner.name == "eeil" else self.cfg.epochs,
            batch=first.batch, lr=self.cfg.lr, momentum=first.momentum, weight_decay=first.weight_decay,
            clip_norm=self.cfg.clip_norm,
        )  # fmt: skip
        last = Stage(
            "two_stage",
            learner.rows_at_hand(phase),
            optim,
            (Group("head.new", schedule=half_cosine), scales),
            sampler=ClassAware(per=self.cfg.per),
            loss=partial(scaled_cross_entropy, learner),
        )
        few = len(phase.new) <= 10 * (phase.hi - phase.lo)
        skips = self.cfg.quirks and learner.name == "lucir" and few
        return [*(stage for stage in stages if not (skips and stage.owner == "learner")), last]


def scaled_cross_entropy(learner: Learner, batch: Batch, out: Outputs) -> dict[str, Tensor]:
    """Plain cross-entropy of the scores as they are tested: the sampler has balanced the classes already."""
    return {"ce": F.cross_entropy(learner.net.calibrated(out, "test"), batch.targets)}


def half_cosine(epoch: int, epochs: int) -> float:
    """1 at first, 0 after the last epoch."""
    return 0.5 * (1 + math.cos(math.pi * epoch / max(epochs, 1)))


def scale_schedule(epoch: int, epochs: int) -> float:
    """The scales start at the full learning rate and go on with a tenth of the head's."""
    return 1.0 if epoch == 0 else 0.1 * half_cosine(epoch, epochs)
