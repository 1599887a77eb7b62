"""WA: distillation, then the new classes' weights are scaled to the old ones' norm (Zhao et al., CVPR 2020)."""

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, NetSpec, Outputs, Phase
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
    Config = WAConfig
    needs = Needs(head=frozenset({"linear"}), teacher=True)
    presets = {"released": {"clip": True, "bias": False}, "sound": {}}
    cfg: WAConfig

    def design(self, spec: NetSpec) -> NetSpec:
        head = spec.head.model_copy(update={"kind": "linear", "options": {"bias": self.cfg.bias}})
        return spec.model_copy(update={"head": head})

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        ce = self.classify(batch, out.logits).mean()
        return proportioned(ce, out.logits, self.teacher_logits(batch), self.cfg.temperature)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        if self.cfg.clip:
            for rows in self.rows():
                rows.clamp_(min=0)

    def end_phase(self, phase: Phase) -> None:
        if phase.index:
            self.tools.log("gamma", self.align())
        super().end_phase(phase)

    @torch.no_grad()
    def align(self) -> float:
        """Give the newest block the old ones' mean row norm; returns gamma (1 if a side has no length)."""
        *earlier, newest = self.rows()
        old, new = (float(part.norm(dim=1).mean()) for part in (torch.cat(earlier), newest))
        gamma = old / new if old > 0 and new > 0 else 1.0
        newest.mul_(gamma)
        return gamma

    def rows(self) -> list[Tensor]:
        """The head's weights [k, D] of every phase."""
        return [value for name, value in self.net.head.named_parameters() if name.endswith("weight")]
