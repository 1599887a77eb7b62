"""WA: distillation, then the new classes' weights are scaled to the old ones' norm (Zhao et al., CVPR 2020)."""

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, NetSpec, Outputs, Phase, Stage
from imbcil.harness.losses import proportioned


class WAConfig(LearnerConfig):
    """`clip`: the head's weights are kept at or above 0 after every step, so that norms and logits correspond
    (the paper). `bias`: whether the head has one; the DER authors' WA has none."""

    temperature: float = Field(default=2.0, gt=0)
    clip: bool = False
    bias: bool = True


class WA(Learner):
    """Predictor: "fc", the linear head after alignment: w_new <- gamma w_new, gamma = mean |w_old| / mean |w_new|
    (the paper's "weight aligning"); biases are not touched. The teacher is the aligned network.

    No settings of the poster's row were published: `released` is the paper's clipping on a head without bias, on
    the recipe's schedule (own construction), `sound` is PyCIL's WA. See docs/poster.md.
    """

    title = "WA"
    version = 2  # aligned before a plug-in's last stage
    Config = WAConfig
    needs = Needs(head=frozenset({"linear"}), teacher=True)
    presets = {"released": {"clip": True, "bias": False}, "sound": {}}
    cfg: WAConfig

    def design(self, spec: NetSpec) -> NetSpec:
        head = spec.head.model_copy(update={"kind": "linear", "options": {"bias": self.cfg.bias}})
        return spec.model_copy(update={"head": head})

    def stages(self, phase: Phase) -> list[Stage]:
        pool, end = phase.memory + phase.new, self.align if phase.index else None
        return [Stage("train", pool, self.cfg.train, end=end)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        ce = self.classify(batch, out.logits).mean()
        return proportioned(ce, out.logits, self.teacher_logits(batch), self.cfg.temperature)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        if self.cfg.clip:
            for rows in self.rows():
                rows.clamp_(min=0)

    def align(self) -> None:
        """Give the newest rows the old ones' mean norm, before any further stage, teacher or evaluation."""
        self.tools.log("gamma", float(self.net.head.align_newest()))

    def rows(self) -> list[Tensor]:
        """The head's weights [k, D] of every phase."""
        return [value for name, value in self.net.head.named_parameters() if name.endswith("weight")]
