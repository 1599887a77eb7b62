"""DER without pruning: one backbone a phase, all older ones frozen, features side by side (Yan et al., CVPR 2021)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Group, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.expansion import expand, old_or_new


class DERConfig(LearnerConfig):
    """`aux`: weight of the auxiliary loss. `classifier`: after training, "align" scales new rows to old ones' norm
    (PyCIL), "retrain" draws the head anew and trains it on balanced data with logits divided by `temperature`, for
    `retrain_share` of the recipe's epochs, the rate a tenth in the second half (the authors), "none" neither."""

    aux: float = Field(default=1.0, ge=0)
    classifier: Literal["align", "retrain", "none"] = "align"
    temperature: float = Field(default=5.0, gt=0)
    retrain_share: float = Field(default=30 / 170, gt=0)


class DER(Learner):
    """Predictor "fc". Not in the poster: both presets are PyCIL's form (alignment, no warm-up); neither public code
    has the masks of the paper, hence "w/o P". Published ResNet-18 numbers are `classifier=retrain`, docs/poster.md.
    """

    title = "DER w/o P"
    version = 2  # aligned before a plug-in's last stage
    Config = DERConfig
    needs = Needs(head=frozenset({"linear"}), hard_labels="its auxiliary head")
    cfg: DERConfig

    def begin_phase(self, phase: Phase) -> None:
        expand(self.net, phase)

    def stages(self, phase: Phase) -> list[Stage]:
        pool, optim = phase.memory + phase.new, self.cfg.train
        if not phase.index:
            return [Stage("train", pool, optim)]
        newest, end = (
            Group("backbones.-1", "head", "aux"),
            self.align if self.cfg.classifier == "align" else None,
        )
        stages = [Stage("train", pool, optim, (newest,), end=end)]
        few = pool.balanced(self.memory.quota(phase.hi), self.tools.gen("balanced", phase.index))
        if self.cfg.classifier == "retrain" and len(few):
            short = optim.shortened(self.cfg.retrain_share, schedule="multistep")
            short = short.model_copy(update={"milestones": (short.epochs // 2,)})
            stages.append(
                Stage("classifier", few, short, (Group("head"),), begin=self.redraw, loss=self.softened)
            )
        return stages

    def align(self) -> None:
        """Before any further stage, teacher or evaluation."""
        self.tools.log("gamma", float(self.net.head.align_newest()))

    def redraw(self) -> None:
        for block in self.net.head.blocks:
            block.reset()  # type: ignore[operator]

    def softened(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"ce": self.classify(batch, out.logits / self.cfg.temperature).mean()}

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = {"ce": self.classify(batch, out.logits).mean()}
        return terms | {name: self.cfg.aux * term for name, term in old_or_new(batch, out).items()}
