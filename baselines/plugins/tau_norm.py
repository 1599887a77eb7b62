"""tau-normalisation: scores over the norm of the head rows to the power of tau, no training (Kang et al. 2020)."""

from typing import ClassVar

from pydantic import Field

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Learner, NetSpec, Phase, Plugin
from imbcil.harness.network.calibration import CalibratorSpec


class TauNormConfig(Frozen):
    """`tau`: 0 leaves the weights alone and drops the bias, 1 makes all rows equally long."""

    tau: float = Field(default=1.0, ge=0, le=2)


class TauNorm(Plugin):
    """z_c -> (z_c - bias_c) / ||w_c||^tau in evaluation, fitted to the head at the end of each phase and before the
    learner's own end; training and teachers see the plain head. A learner's own calibrator comes first."""

    Config = TauNormConfig
    slots: ClassVar[tuple[str, ...]] = ("calibrator",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"linear"})
    source: ClassVar[str] = "Kang et al., ICLR 2020"
    cfg: TauNormConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_calibrator("tau_norm", CalibratorSpec(active=("test",)))

    def end_phase(self, phase: Phase, learner: Learner) -> None:
        head = learner.net.head
        factors = head.row_norms().clamp(min=1e-12).pow(-self.cfg.tau)
        shifts = None if head.bias is None else -factors * head.bias.detach()
        learner.net.calibrator("tau_norm").set(a=factors, b=shifts)
