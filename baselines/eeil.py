"""EEIL: end-to-end training with distillation per head, then fine-tuning on a balanced set (Castro et al., ECCV 2018)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import (
    Batch,
    Learner,
    LearnerConfig,
    Needs,
    Optimisation,
    Outputs,
    Phase,
    Pool,
    Stage,
)
from imbcil.harness.losses import task_distillation
from imbcil.harness.memory import herding
from imbcil.harness.network.network import freeze


class EEILConfig(LearnerConfig):
    """`heads`: "all" old tasks are distilled and, while fine-tuning, the newest one too, from a copy taken before
    (the paper); "off_by_one" leaves the latest of them out in both stages (FACIL). `kd`: "softmax", or "binary"
    cross-entropy of the softened probabilities, averaged over classes (FACIL). `balanced_set`: "per_class", new
    classes herded down to what old ones have; "random", as many new images as the memory has rows (FACIL).
    `tuning_epochs`, `tuning_lr` (factor on the recipe's) and `tuning_milestones`: the second stage; unset, those of the
    first: 30 of 40 epochs where a phase has 90 (Long-Tailed-CIL runs both by one schedule)."""

    distillation: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    heads: Literal["all", "off_by_one"] = "all"
    kd: Literal["softmax", "binary"] = "softmax"
    balanced_set: Literal["per_class", "random"] = "per_class"
    tuning_epochs: int = Field(default=30, ge=0)
    tuning_lr: float = Field(default=0.1, ge=0)
    tuning_milestones: tuple[int, ...] | None = (10, 20)


class EEIL(Learner):
    """Predictor: "fc". After the first phase every phase has a second stage that trains all weights on the
    balanced set. The paper's gradient noise and offline augmentation are in neither preset.

    The poster's row is `eeil+two_stage` with `released`, Long-Tailed-CIL's code. See docs/poster.md.
    """

    title = "EEIL"
    Config = EEILConfig
    needs = Needs(teacher=True)
    presets = {
        "released": {
            "heads": "off_by_one", "kd": "binary", "balanced_set": "random",
            "tuning_epochs": 40, "tuning_lr": 0.01, "tuning_milestones": None,
        },
        "sound": {},
    }  # fmt: skip
    cfg: EEILConfig

    def stages(self, phase: Phase) -> Sequence[Stage]:
        stages = [Stage("train", phase.memory + phase.new, self.cfg.train)]
        if phase.index:
            train, marks = self.cfg.train, self.cfg.tuning_milestones
            optim = Optimisation(
                **{
                    **dict(train),
                    "epochs": self.cfg.tuning_epochs,
                    "lr": train.lr * self.cfg.tuning_lr,
                    "schedule": "multistep",
                    "milestones": train.milestones if marks is None else marks,
                }
            )
            pool, begin = lambda: self.balanced(phase), self.copy_before_tuning
            stages.append(Stage("balanced", pool, optim, loss=self.tuning_loss, begin=begin))
        return stages

    def copy_before_tuning(self) -> None:
        if self.cfg.heads == "all":
            self.state["before_tuning"] = freeze(self.net)

    def balanced(self, phase: Phase) -> Pool:
        """The memory and a part of the new data."""
        if self.cfg.balanced_set == "random":
            order = torch.randperm(len(phase.new), generator=self.tools.gen("balanced", phase.index))
            return phase.memory + phase.new[order[: len(phase.memory)]]
        features, quota = self.tools.sweep(phase.new).features, self.memory.quota(phase.lo)
        rows = [rows[herding(features[rows], quota)] for rows in phase.new.rows_by_class().values()]
        return phase.memory + (phase.new[torch.cat(rows)] if rows else phase.new)

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return self.terms(batch, out, self.teacher_logits(batch), len(self.net.head.splits) - 1)

    def tuning_loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        taught = self.teacher_logits(batch)
        if taught is not None and self.cfg.heads == "all":
            with torch.no_grad():
                newest = self.state["before_tuning"](batch.images).logits[:, taught.shape[1] :]
            taught = torch.cat([taught, newest], dim=1)
        return self.terms(batch, out, taught, len(self.net.head.splits))

    def terms(self, batch: Batch, out: Outputs, taught: Tensor | None, n_tasks: int) -> dict[str, Tensor]:
        """Cross-entropy over all classes and distillation of the first `n_tasks` tasks from `taught` [B, K']."""
        terms = {"ce": self.classify(batch, out.logits).mean()}
        if taught is None:
            return terms
        tasks = self.net.head.slices()[: n_tasks - (self.cfg.heads == "off_by_one")]
        distil = binary_distillation if self.cfg.kd == "binary" else task_distillation
        return {
            **terms,
            "kd": self.cfg.distillation * distil(out.logits, taught, tasks, self.cfg.temperature),
        }

    def end_phase(self, phase: Phase) -> None:
        self.state.pop("before_tuning", None)
        super().end_phase(phase)


def binary_distillation(
    student: Tensor, teacher: Tensor, tasks: Sequence[slice], temperature: float
) -> Tensor:
    """Binary cross-entropy between softened probabilities of each task, mean over rows and classes, summed over
    tasks. Shapes as in `task_distillation`."""
    total = student.new_zeros(())
    for task in tasks:
        found, wanted = ((logits[:, task] / temperature).softmax(dim=1) for logits in (student, teacher))
        total = total + F.binary_cross_entropy(found, wanted)
    return total
