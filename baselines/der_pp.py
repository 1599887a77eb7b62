"""DER++: replay of stored logits beside stored labels (Buzzega et al., NeurIPS 2020), with several labels an image."""

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, MixedConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import mean_over
from imbcil.harness.memory import stack_extras
from imbcil.harness.stages import mixed_stage


class DERppConfig(MixedConfig):
    """`logits`, `labels`: weights of the two replayed terms (the paper's alpha and beta)."""

    logits: float = Field(default=0.5, ge=0)
    labels: float = Field(default=0.5, ge=0)


class DERpp(Learner):
    """Predictor: "fc". BCE on new images + logits * MSE(z, z_stored) on one draw of the memory + labels * BCE on another,
    independent one; columns that came after an exemplar was stored are left out of both.

    Label policy mask_current, memory capture_only. Logits are those of the end of the phase in which a row was
    stored, in the test view; the original fills a reservoir online, here the run's memory settings choose.
    """

    title = "DER++"
    Config = DERppConfig
    needs = Needs(labels=frozenset({"multi"}), sampler="own")
    cfg: DERppConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [mixed_stage(phase, self.cfg.train, 2, self.cfg.ratio)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        assert batch.mask is not None
        losses = self.classify(batch, out.logits)
        stream = batch.stream.unsqueeze(1)
        terms = {"ce": mean_over(losses, batch.mask & (stream == 0))}
        if len(self.memory):
            stored = batch.extras["logits"]
            known = ~stored.isnan()
            target = torch.where(known, stored, 0.0)
            gap = (out.logits[:, : stored.shape[1]] - target).square()
            terms["logits"] = self.cfg.logits * mean_over(gap, known & (stream == 1))
            terms["labels"] = self.cfg.labels * mean_over(losses, batch.mask & (stream == 2))
        return terms

    def end_phase(self, phase: Phase) -> None:
        held = self.memory.extras.get("logits")
        sweep = self.tools.sweep(phase.memory + phase.new if not self.memory.settings.empty else phase.memory)
        fresh = sweep.logits[len(phase.memory) :]
        self.keep_exemplars(phase, sweep, logits=stack_extras(held, len(phase.memory), fresh, len(fresh)))
