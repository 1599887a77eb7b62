"""Class-balanced sampling: every class is drawn equally often, or in proportion to n ** q (Kang et al. 2020)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Learner, Phase, Plugin, Stage
from imbcil.harness.samplers import Shuffle, Weighted


class ClassBalancedSamplingConfig(Frozen):
    """`q`: a class's share is proportional to n ** q: 0 uniform over classes, 0.5 square root."""

    q: float = Field(default=0.0, ge=0, lt=1)


class ClassBalancedSampling(Plugin):
    """Replaces the shuffle of the learner's own stages; an epoch keeps its length."""

    Config = ClassBalancedSamplingConfig
    slots: ClassVar[tuple[str, ...]] = ("sampler",)
    source: ClassVar[str] = "Kang et al., ICLR 2020, sec. 3"
    cfg: ClassBalancedSamplingConfig

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        weighted = Weighted(q=self.cfg.q)
        return [
            replace(stage, sampler=weighted)
            if stage.owner == "learner" and isinstance(stage.sampler, Shuffle)
            else stage
            for stage in stages
        ]
