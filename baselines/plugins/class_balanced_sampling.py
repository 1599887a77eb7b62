"""Class-balanced sampling: all classes drawn equally often, by n ** q, or step by step so (Kang et al. 2020)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Learner, Phase, Plugin, Stage
from imbcil.harness.samplers import Progressive, SamplerPlan, Weighted
from imbcil.harness.stages import replace_shuffles


class ClassBalancedSamplingConfig(Frozen):
    """`form`: a class's share is that of its images ("instance", the control), of their square root, the same for all
    ("class"), or goes from the first to the last over the epochs ("progressive"). `q`: in the place of `form`, a share
    proportional to n ** q."""

    form: Literal["instance", "square_root", "class", "progressive"] = "class"
    q: float | None = Field(default=None, ge=0, le=1)


class ClassBalancedSampling(Plugin):
    """Replaces the shuffle of the learner's own stages; rows are drawn with replacement and an epoch keeps its length.
    With several labels an image, by the class whose share of the memory a row counts towards."""

    Config = ClassBalancedSamplingConfig
    slots: ClassVar[tuple[str, ...]] = ("sampler",)
    source: ClassVar[str] = "Kang et al., ICLR 2020, sec. 3"
    cfg: ClassBalancedSamplingConfig

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        return replace_shuffles(stages, self.sampler())

    def sampler(self) -> SamplerPlan:
        if self.cfg.q is not None:
            return Weighted(q=self.cfg.q)
        if self.cfg.form == "progressive":
            return Progressive()
        return Weighted(q={"instance": 1.0, "square_root": 0.5, "class": 0.0}[self.cfg.form])
