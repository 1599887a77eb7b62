"""Logit adjustment: tau log pi on the logits, in the loss or, its sign turned, afterwards (Menon et al. 2021)."""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Learner, NetSpec, Phase, Plugin
from imbcil.harness.network.calibration import CalibratorSpec
from imbcil.harness.rebalancing import prior


class LogitAdjustmentConfig(Frozen):
    """`form` "loss": cross-entropy of z + tau log pi, scores raw; "posthoc": plain training, scores z - tau log pi."""

    form: Literal["loss", "posthoc"] = "loss"
    tau: float = Field(default=1.0, ge=0)


class LogitAdjustment(Plugin):
    """pi is of the stage's pool in the loss and of memory and new data after training. With tau = 1 the loss is balanced
    softmax."""

    Config = LogitAdjustmentConfig
    slots: ClassVar[tuple[str, ...]] = ("criterion", "calibrator")
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Menon et al., ICLR 2021"
    cfg: LogitAdjustmentConfig

    @classmethod
    def claims(cls, cfg: Any) -> tuple[str, ...]:
        return ("criterion",) if cfg.form == "loss" else ("calibrator",)

    def design(self, spec: NetSpec) -> NetSpec:
        if self.cfg.form == "loss":
            return spec
        return spec.with_calibrator(self.name, CalibratorSpec(active=("test",)))

    def criterion(self, inner: Criterion) -> Criterion:
        if self.cfg.form != "loss":
            return inner

        def adjusted(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            shift = self.cfg.tau * prior(batch.counts[classes]).log()
            return inner(batch, logits + shift, targets, classes)

        return adjusted

    def end_phase(self, phase: Phase, learner: Learner) -> None:
        if self.cfg.form == "posthoc":
            shares = prior(learner.rows_at_hand(phase).counts(phase.hi))
            learner.net.calibrator(self.name).set(b=-self.cfg.tau * shares.log())
