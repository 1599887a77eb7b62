"""Fine-tuning: each phase trains on its new classes alone. The lower reference of every table."""

from torch import Tensor

from imbcil.harness.contract import Batch, Learner, Needs, Outputs, Phase, Stage


class Finetune(Learner):
    """Cross-entropy over the phase's own classes; no memory. Several labels an image: binary cross-entropy over the
    visible columns, which with `labels.policy = assume_negative` are the old ones too (KRT's fine-tuning)."""

    title = "Finetune"
    needs = Needs(labels=frozenset({"single", "multi"}), memory="none")

    def stages(self, phase: Phase) -> list[Stage]:
        return [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"ce": self.own_classes(batch, out.logits)}
