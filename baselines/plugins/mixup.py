"""Mixup: images and labels of two rows of a batch, mixed in the same proportion (Zhang et al. 2018)."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.base.config import Frozen
from imbcil.harness.contract import Batch, Criterion, Learner, Phase, Plugin, Stage


class MixupConfig(Frozen):
    """`alpha`: lambda ~ Beta(alpha, alpha), one draw a batch."""

    alpha: float = Field(default=1.0, gt=0)


class Mixup(Plugin):
    """x = lambda x_i + (1 - lambda) x_j and lambda L(y_i) + (1 - lambda) L(y_j) in the learner's own stages that train
    a backbone; alpha = 1 is the paper's for CIFAR. `batch.targets` stays y_i, `batch.shares` has both labels. Beside
    another criterion, that one is asked for each label on its own."""

    Config = MixupConfig
    slots: ClassVar[tuple[str, ...]] = ("targets",)
    labels: ClassVar[frozenset[str]] = frozenset({"single"})
    source: ClassVar[str] = "Zhang et al., ICLR 2018"
    cfg: MixupConfig

    def begin_phase(self, phase: Phase, learner: Learner) -> None:
        self.state["phase"] = phase.index

    def begin_stage(self, stage: Stage, learner: Learner) -> None:
        trains = any(value.requires_grad for value in learner.net.backbones.parameters())
        self.state["mixes"] = trains and stage.owner == "learner"
        self.state["classes"] = learner.net.n_classes

    def prepare(self, batch: Batch) -> Batch:
        if not self.state["mixes"]:
            return batch
        generator = self.tools.gen("mixup", self.state["phase"], batch.stage, batch.epoch, batch.step)
        seed = int(torch.randint(2**62, (), generator=generator))
        first = float(np.random.default_rng(seed).beta(self.cfg.alpha, self.cfg.alpha))
        partner = torch.randperm(len(batch.images), generator=generator).to(batch.images.device)
        shares = batch.label_shares(self.state["classes"])
        return replace(
            batch,
            images=first * batch.images + (1 - first) * batch.images[partner],
            shares=first * shares + (1 - first) * shares[partner],
            scratch={**batch.scratch, "mixup": (first, partner)},
        )

    def criterion(self, inner: Criterion) -> Criterion:
        def mixed(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
            losses = inner(batch, logits, targets, classes)
            if "mixup" not in batch.scratch:
                return losses
            first, partner = batch.scratch["mixup"]
            other = inner(batch, logits, targets[partner], classes)
            result: Tensor = first * losses + (1 - first) * other
            return result

        return mixed
