"""MEMO: as DER, but only the last stage is duplicated; stem and first stages are shared (Zhou et al., ICLR 2023)."""

from pydantic import Field
from torch import Tensor

from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import (
    Batch,
    Group,
    Learner,
    LearnerConfig,
    Needs,
    NetSpec,
    Outputs,
    Phase,
    Stage,
)
from imbcil.harness.expansion import expand, old_or_new
from imbcil.harness.network.backbones import can_be_cut
from imbcil.harness.network.network import ModuleSpec


class MEMOConfig(LearnerConfig):
    """`aux`: weight of the auxiliary loss. `train_shared`: the shared stages keep learning after the first phase (the
    released code, although the paper speaks of generalised blocks). `align`: scale new rows to old ones' norm."""

    aux: float = Field(default=1.0, ge=0)
    train_shared: bool = True
    align: bool = True


class MEMO(Learner):
    """Predictor "fc". Not in the poster: both presets are the released code. Its published numbers use 3,312 exemplars,
    as many as DER's further parameters would hold; see docs/poster.md.
    """

    title = "MEMO"
    version = 2  # aligned before a plug-in's last stage
    Config = MEMOConfig
    needs = Needs(head=frozenset({"linear"}), hard_labels="its auxiliary head")
    cfg: MEMOConfig

    def design(self, spec: NetSpec) -> NetSpec:
        whole = spec.backbones[0]
        if not can_be_cut(whole.kind):
            raise BadInput(
                f"memo shares all but a backbone's last stage, and {whole.kind} has none; use a ResNet."
            )
        trunk = ModuleSpec(kind=whole.kind, options={**whole.options, "part": "stem"})
        return spec.with_backbones(part="tail").model_copy(update={"trunk": trunk})

    def begin_phase(self, phase: Phase) -> None:
        expand(self.net, phase)

    def stages(self, phase: Phase) -> list[Stage]:
        pool = phase.memory + phase.new
        if not phase.index:
            return [Stage("train", pool, self.cfg.train)]
        shared = ["trunk"] if self.cfg.train_shared else []
        groups = (Group(*shared, "backbones.-1", "head", "aux"),)
        return [Stage("train", pool, self.cfg.train, groups, end=self.align if self.cfg.align else None)]

    def align(self) -> None:
        """Before any further stage, teacher or evaluation."""
        self.tools.log("gamma", float(self.net.head.align_newest()))

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        told_apart = {name: self.cfg.aux * term for name, term in old_or_new(batch, out).items()}
        return {"ce": self.classify(batch, out.logits).mean(), **told_apart}
