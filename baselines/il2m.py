"""IL2M: fine-tuning with exemplars, and at test time old scores rescaled from stored statistics (Belouadah &
Popescu, ICCV 2019)."""

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Learner, LearnerConfig, NetSpec, Phase, Sweep
from imbcil.harness.network.calibration import CalibratorSpec


class IL2MConfig(LearnerConfig):
    """`floor`: a mean at or below it is no scale to divide by or to multiply with; such a class keeps its score."""

    floor: float = Field(default=1e-2, ge=0)


class IL2M(Learner):
    """Predictor: "fc": where the best raw logit belongs to a new class, each old class's logit is multiplied by
    [its mean score when it was new / now] x [the network's confidence now / when the class was new] (eq. 1).
    Scores are logits, as in the released code; without exemplars nothing is rescaled.

    The statistics come from one pass at the phase's end with the test transform; FACIL's and Long-Tailed-CIL's
    from augmented images. The presets do not differ in settings. See docs/poster.md.
    """

    title = "IL2M"
    version = 2  # its last factors rest while a plug-in's last stage trains
    Config = IL2MConfig
    cfg: IL2MConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_calibrator("il2m", CalibratorSpec(condition="argmax_new", active=("test",)))

    def begin_phase(self, phase: Phase) -> None:
        """A plug-in's last stage fits the scores of tests: the last phase's factors have no say in it."""
        super().begin_phase(phase)
        self.net.calibrator("il2m").set(a=torch.ones(phase.hi))

    def end_phase(self, phase: Phase) -> None:
        sweep = self.tools.sweep(phase.memory + phase.new)
        means, confidence = class_scores(sweep, phase.hi), new_confidence(sweep, phase.lo)
        first: Tensor = self.state.get("first", means[:0])
        confident: Tensor = self.state.get("confident", means[:0])
        factors, kept = rectification(first, means[: phase.lo], confident, confidence, self.cfg.floor)
        self.net.calibrator("il2m").set(a=torch.cat([factors, torch.ones(phase.hi - phase.lo)]))
        self.tools.log("not_rectified", float(kept))
        self.state["first"] = torch.cat([first, means[phase.lo :]])
        self.state["confident"] = torch.cat([confident, confidence.repeat(phase.hi - phase.lo)])
        self.keep_exemplars(phase, sweep)


def class_scores(sweep: Sweep, n_classes: int) -> Tensor:
    """Mean logit of each class on its own rows [n_classes], NaN for a class without a row."""
    own = sweep.logits.gather(1, sweep.targets.unsqueeze(1)).squeeze(1)
    total = torch.zeros(n_classes).index_add_(0, sweep.targets, own)
    return total / torch.bincount(sweep.targets, minlength=n_classes)


def new_confidence(sweep: Sweep, n_old: int) -> Tensor:
    """Mean over the new classes' rows of the highest logit: a scalar, NaN without a row."""
    rows = sweep.logits[sweep.targets >= n_old]
    return rows.amax(dim=1).mean() if len(rows) else torch.tensor(torch.nan)


def rectification(
    first: Tensor, now: Tensor, confident: Tensor, confidence: Tensor, floor: float
) -> tuple[Tensor, int]:
    """(factors [K_old], how many classes keep their score): (first / now) (confidence / confident), 1 where any
    of the four is at or below `floor`, or unknown. All [K_old] but `confidence`, a scalar."""
    usable = (first > floor) & (now > floor) & (confident > floor) & (confidence > floor)
    factors = torch.where(usable, first / now * (confidence / confident), 1.0)
    return factors, int((~usable).sum())
