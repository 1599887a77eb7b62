"""RebLL (reconstruction): asymmetric distillation and online relabelling (Du et al., AAAI 2025, arXiv 2408.12161).

No code and no equations are public. From abstract and reviews: the positive half of the classification loss decays
with confidence, distillation weighs over-confident predictions down by an adaptive exponential factor, and the memory's
unlabelled blocks are filled at a phase's end, old columns of new rows by the past model, new columns of old rows by the
current one. Form, scope, exponent, thresholds and all weights are choices of this file.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Network, Outputs, Phase, Sweep
from imbcil.harness.labels import CURRENT_MODEL, PAST_MODEL, guessed_labels
from imbcil.harness.losses import decay_positives, mean_over, probability_gap, soft_bce_cells, visible_bce


class RebLLConfig(LearnerConfig):
    """`alpha`: weight of the classification loss, 1 - alpha of the distillation; `memory_weight`: of the plain binary
    cross-entropy on exemplars over all columns known of them.

    Decay w(u) = (1 - u)^g ("power") or exp(-g u) ("exp"), g the `exponent`: on the positive half of the classification
    loss, u the student's probability, and in the distillation with `scope` "element", on a class's whole term, or
    "positive", on its positive half; `source`: whose probability (unset: teacher for element, student for positive).
    `exponent_kind` "adaptive": after each step g moves by `rate` times how far the gap between the mean probability of
    positives and of negatives exceeds `gap` (as ASL's adaptive variant steers its focus).
    `classification_decay`, `relabel`: switch one part off. `when`: relabel new columns of old rows at the phase's end or
    after every epoch. `labels`: 0/1 at `threshold`, or probabilities ("soft"). `confident`: hide cells whose probability
    lies between 1 - threshold and threshold. `quota`: no more filled positives of a class than its share of the images.
    """

    alpha: float = Field(default=0.5, ge=0, le=1)
    memory_weight: float = Field(default=1.0, ge=0)
    scope: Literal["element", "positive"] = "element"
    source: Literal["teacher", "student"] | None = None
    form: Literal["power", "exp"] = "power"
    exponent: float = Field(default=1.0, ge=0)
    exponent_kind: Literal["fixed", "adaptive"] = "fixed"
    gap: float = Field(default=0.5, ge=-1, le=1)
    rate: float = Field(default=0.01, ge=0)
    classification_decay: bool = True
    relabel: bool = True
    when: Literal["phase_end", "epoch"] = "phase_end"
    labels: Literal["hard", "soft"] = "hard"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    confident: bool = False
    quota: bool = False

    @model_validator(mode="after")
    def _keeps_the_ranking(self) -> Self:
        reverses = (self.scope, self.decided_by, self.form) == ("positive", "teacher", "power")
        if reverses and self.exponent >= 2:
            raise ValueError(
                "scope positive with the teacher's power decay reverses the ranking of probabilities from exponent 2 on; "
                "take source student, form exp, or an exponent below 2"
            )
        return self

    @property
    def decided_by(self) -> str:
        """Whose probability decays the distillation."""
        return self.source or ("teacher" if self.scope == "element" else "student")


class RebLL(Learner):
    """Predictor: "fc". Label policy mask_current; the memory's labels are "relabel" unless the run says otherwise.

    With exponent 0 and relabelling off it is binary cross-entropy plus soft-target distillation, bit for bit. Unknown:
    the decay's exact form and exponent, thresholds, loss weights, the schedule.
    """

    title = "RebLL (recon)"
    Config = RebLLConfig
    needs = Needs(
        labels=frozenset({"multi"}), criterion="decayed binary cross-entropy", teacher=True, memory_labels="relabel"
    )  # fmt: skip
    reconstruction = True
    cfg: RebLLConfig

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if "exponent" not in self.state:
            start = torch.tensor(self.cfg.exponent, device=self.net.head.weight.device)
            self.state |= {"exponent": start, "images": 0}
        self.state["images"] += len(phase.new)
        self.state["prior"] = (phase.seen_counts / self.state["images"]).clone()

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        assert batch.mask is not None
        cfg, logits = self.cfg, out.logits
        new, old = (batch.slot < 0).to(logits.device).unsqueeze(1), self.teacher_logits(batch)
        p = batch.scratch["p"] = logits.detach().sigmoid()
        cells = plain = visible_bce(logits, batch.targets)
        if cfg.classification_decay:
            known = torch.where(batch.mask, batch.targets, 0.0)
            cells = decay_positives(plain, logits, known, self.decay(p))
        terms = {"cls": mean_over(cells, batch.mask & new)}
        if old is not None:
            terms = {"cls": cfg.alpha * terms["cls"], "kd": (1 - cfg.alpha) * self.distilled(logits, old)}
        if cfg.memory_weight and len(self.memory):
            terms["memory"] = cfg.memory_weight * mean_over(plain, batch.mask & ~new)
        return terms

    def distilled(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Asymmetric distillation over the old columns, mean over cells."""
        student, q = logits[:, : teacher.shape[1]], teacher.sigmoid()
        plain = soft_bce_cells(student, teacher)
        weight = self.decay(q if self.cfg.decided_by == "teacher" else student.detach().sigmoid())
        if self.cfg.scope == "element":
            return (weight * plain).mean()
        return decay_positives(plain, student, q, weight).mean()

    def decay(self, probability: Tensor) -> Tensor:
        """w(u), one for exponent 0."""
        g: Tensor = self.state["exponent"].to(probability)
        return (1 - probability).pow(g) if self.cfg.form == "power" else (-g * probability).exp()

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        if self.cfg.exponent_kind == "adaptive":
            step = self.cfg.rate * (probability_gap(batch.scratch["p"], batch.targets) - self.cfg.gap)
            self.state["exponent"] = (self.state["exponent"] + step).clamp(min=0)
        if batch.step == batch.steps - 1 and self.cfg.when == "epoch" and len(self.memory):
            self.fill_new_columns(self.net.n_classes - self.net.head.splits[-1], self.net.n_classes)

    def end_phase(self, phase: Phase) -> None:
        if self.cfg.exponent_kind == "adaptive":
            self.tools.log("exponent", float(self.state["exponent"]))
        kept = self.keep_exemplars(phase)
        if phase.lo and len(self.memory):
            self.fill(self.memory.phase == phase.index, phase.old, PAST_MODEL, self.state["old"])
            self.fill_new_columns(phase.lo, phase.hi, kept)
        self.freeze_teacher()

    def fill_new_columns(self, lo: int, hi: int, kept: Sweep | None = None) -> None:
        """The newest columns of older rows, by the current model; `kept`: what it makes of the memory, if known."""
        older = (self.memory.extras["prov"][:, lo:hi] == 1).any(dim=1).logical_not()
        self.fill(older, slice(lo, hi), CURRENT_MODEL, self.net, kept)

    def fill(self, rows: Tensor, classes: slice, by: int, net: Network, kept: Sweep | None = None) -> None:
        """Write what `net` makes of exemplars `rows` [M] bool into columns `classes`, if anything is relabelled at all."""
        cfg, slots = self.cfg, torch.nonzero(rows).flatten()
        if not (len(slots) and cfg.relabel and self.memory.relabels):
            return
        found = self.tools.sweep(self.memory.pool()[slots], net) if kept is None else kept[slots]
        p, prior = found.logits[:, classes].sigmoid(), self.state["prior"][classes] if cfg.quota else None
        values = guessed_labels(p, cfg.threshold, cfg.labels == "soft", prior, cfg.confident)
        self.memory.relabel(slots, classes, values, by)
