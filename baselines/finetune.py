"""Fine-tuning: each phase trains on its new classes alone. The lower reference of every table."""

from torch import Tensor

from imbcil.harness.contract import Batch, Learner, Needs, Outputs, Phase, Stage


class Finetune(Learner):
    """Cross-entropy over the phase's own classes; no memory."""

    title = "Finetune"
    needs = Needs(memory="none")

    def stages(self, phase: Phase) -> list[Stage]:
        return [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"ce": self.classify(batch, out.logits, classes=self.net.head.slices()[-1]).mean()}
