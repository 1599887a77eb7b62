"""L3A: a frozen backbone, random features and one weighted ridge regression for all phases (ICML 2025); no memory."""

import math

import torch
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Outputs, Phase, Stage
from imbcil.harness.losses import asymmetric_loss, mean_over

EDGE = 1e-3  # beyond it, scores go on as a straight line


class L3AConfig(LearnerConfig):
    """`width`: random features (4096 on COCO, 8192 on VOC). `ridge`: 1000, for ViT 1. `threshold`: where the sigmoid of
    the regression's output exceeds it, an old class counts as positive (0.7 is an output of 0.85). `block`: rows per
    accumulation, so that memory stays at width^2 + one block."""

    width: int = Field(default=1024, ge=1)
    ridge: float = Field(default=1000.0, gt=0)
    threshold: float = Field(default=0.7, gt=0, lt=1)
    block: int = Field(default=2048, ge=1)


class L3A(Learner):
    """Predictor: "ridge", the regression's output y as log(y / (1 - y)). The base phase trains the network by asymmetric
    loss (one epoch in the paper, which starts from other weights; here the recipe's), then it rests; every phase adds
    its rows to Z'OZ and Z'OY in float64, Z = ReLU(random projection of the features), and solves anew.

    Label policy pseudo_old; any other cell that is not given, an ignored one too, is a negative, since one Z'OZ serves all
    columns. O: a row's mean of the inverse square roots of its classes' counts, scaled to mean 1 over classes, 0 for a class
    without an image. The projection is drawn as torch draws a linear layer's weights (the code's), which `ridge` goes with.
    """

    title = "L3A"
    version = 2  # the code's projection and threshold; classes without an image no longer weaken the others
    Config = L3AConfig
    needs = Needs(
        labels=frozenset({"multi"}), memory="none", criterion="ridge regression", policy="pseudo_old"
    )
    cfg: L3AConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [] if phase.index else [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        assert batch.mask is not None
        return {"asl": mean_over(asymmetric_loss(out.logits, batch.targets), batch.mask)}

    def end_phase(self, phase: Phase) -> None:
        sweep, width = self.tools.sweep(phase.new), self.cfg.width
        if not phase.index:
            drawn = random_projection(sweep.features.shape[1], width, self.tools.gen("projection"))
            self.state["projection"] = drawn.to(self.net.head.weight.device)
            self.state["gram"] = torch.zeros(width, width, dtype=torch.float64)
            self.state["products"] = torch.zeros(width, 0, dtype=torch.float64)
        fresh = torch.zeros(width, phase.hi - phase.lo, dtype=torch.float64)
        self.state["products"] = torch.cat([self.state["products"], fresh], dim=1)
        of_class = class_weights(phase.seen_counts)
        for rows in torch.split(torch.arange(len(phase.new)), self.cfg.block):
            z = self.random_features(sweep.features[rows].to(self.state["projection"])).double().cpu()
            labels = self.targets(sweep.targets[rows], z, phase.lo)
            weight = row_weights(labels, of_class).unsqueeze(1)
            self.state["gram"] += z.T @ (weight * z)
            self.state["products"] += z.T @ (weight * labels)
        self.solve()

    def solve(self) -> None:
        gram: Tensor = self.state["gram"]
        ridge = self.cfg.ridge * torch.eye(len(gram), dtype=torch.float64)
        weights = torch.linalg.solve(gram + ridge, self.state["products"])
        self.state["ridge"] = weights.float().to(self.net.head.weight.device)

    def targets(self, given: Tensor, z: Tensor, lo: int) -> Tensor:
        """Labels [N, K] in float64: under pseudo_old, old columns from the regression as it is; else cells not given 0."""
        labels = torch.where(given.isnan(), 0.0, given).double()
        if lo and self.tools.pseudo_labels:
            labels[:, :lo] = self.guessed(z @ self.state["ridge"].double().cpu()).double()
        return labels

    def guessed(self, outputs: Tensor) -> Tensor:
        """Where outputs of the regression count as positives."""
        return outputs.sigmoid() > self.cfg.threshold

    def random_features(self, features: Tensor) -> Tensor:
        projection: Tensor = self.state["projection"]
        return (features @ projection).relu()

    def outputs(self, images: Tensor) -> Tensor:
        """What the regression says [B, K]."""
        found: Tensor = self.random_features(self.net(images).features) @ self.state["ridge"]
        return found

    def pseudo_targets(self, images: Tensor) -> Tensor:
        return self.guessed(self.outputs(images)).float()

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        found = self.outputs(images)
        inside = found.clamp(EDGE, 1 - EDGE)
        return {"ridge": inside.logit() + (found - inside) / EDGE}


def random_projection(dim: int, width: int, generator: torch.Generator) -> Tensor:
    """Weights [dim, width], uniform between -1 / sqrt(dim) and 1 / sqrt(dim)."""
    drawn: Tensor = (2 * torch.rand(dim, width, generator=generator) - 1) / math.sqrt(dim)
    return drawn


def class_weights(counts: Tensor) -> Tensor:
    """Inverse square roots of counts [K] in float64, zero for a count of 0, scaled to mean 1."""
    inverse = torch.where(counts > 0, counts.double().clamp(min=1).rsqrt(), 0.0)
    return inverse / inverse.mean().clamp(min=1e-12)


def row_weights(labels: Tensor, of_class: Tensor) -> Tensor:
    """Mean weight of each row's classes [N]; 1 for a row without any."""
    number = labels.sum(dim=1)
    return torch.where(number > 0, labels @ of_class / number.clamp(min=1), 1.0)
