"""Deferred re-sampling: plain training, then class-balanced draws for the last part (Cao et al. 2019)."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Learner, Phase, Plugin, Stage
from imbcil.harness.samplers import Deferred
from imbcil.harness.stages import replace_shuffles


class DRSConfig(Frozen):
    """`start`: share of the stage before the draws are balanced. `q`: then, a class's share is proportional to n ** q."""

    start: float = Field(default=0.8, ge=0, le=1)
    q: float = Field(default=0.0, ge=0, le=1)


class DRS(Plugin):
    """For the learner's own stages. start = 0.8 is the paper's epoch 160 of 200 for deferred re-weighting."""

    Config = DRSConfig
    slots: ClassVar[tuple[str, ...]] = ("sampler",)
    source: ClassVar[str] = "Cao et al., NeurIPS 2019, with sampling for weights"
    cfg: DRSConfig

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        return replace_shuffles(stages, Deferred(self.cfg.start, self.cfg.q))
