"""CSC: class activation maps as nodes of a learned label graph, and an entropy term against over-confidence (ECCV 2024)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, NetSpec, Outputs
from imbcil.harness.losses import soft_bce
from imbcil.harness.network.heads import Block, Head, register_head

SLOPE = 0.2  # of every leaky ReLU in the graph


class LabelNodes(Block):
    """A phase's classes in the graph: their activation maps' rows (`weight`), what they take from the classes so far
    and send to older ones, their relation rows and their classifiers."""

    def __init__(self, classes: int, older: int, dim: int, width: int) -> None:
        super().__init__(classes, dim, bias=False)
        bound = (older + classes) ** -0.5
        self.takes = nn.Parameter(torch.empty(classes, older + classes).uniform_(-bound, bound))
        self.sends = nn.Parameter(torch.zeros(older, classes))
        self.opening = nn.Parameter(torch.zeros(older, classes))
        self.relation = nn.Linear(2 * width, classes)
        self.classifier = nn.Linear(width, classes)


@register_head("csc")
class CSCHead(Head):
    """CI-GCN on the last map: z = mean or sum of the activation maps' maxima and the graph's answer. Links from new to
    older classes start at zero, so that old logits do not change when classes arrive. extras: "cam", "graph" [B, K]."""

    use_bias = False

    def __init__(self, dim: int, width: int | None = None, join: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(dim)
        self.width = width or max(dim // 2, 1)
        self.share = 0.5 if join == "mean" else 1.0
        self.project = nn.Conv2d(dim, self.width, 1)
        self.general = nn.Linear(self.width, self.width)
        self.context = nn.Linear(self.width, self.width)
        self.norm = nn.BatchNorm1d(self.width)
        self.specific = nn.Linear(self.width, self.width)

    def grow(self, classes: int) -> None:
        self.blocks.append(
            LabelNodes(classes, sum(self.splits), self.dim, self.width).to(self.project.weight)
        )
        self.splits.append(classes)

    def nodes(self) -> list[LabelNodes]:
        return [block for block in self.blocks if isinstance(block, LabelNodes)]

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        last = maps[-1].float()
        cams = F.conv2d(last, self.weight[:, :, None, None]).flatten(2)  # [B, K, places]
        seen = self.project(last).flatten(2).transpose(1, 2)
        start = cams.softmax(dim=2) @ seen  # M^T F: [B, K, width]
        learned = F.leaky_relu(self.general(F.leaky_relu(self.links() @ start, SLOPE)), SLOPE)
        mixed = start + learned
        own = F.leaky_relu(self.specific(F.leaky_relu(self.relations(mixed) @ mixed, SLOPE)), SLOPE)
        rows = torch.cat([block.classifier.weight for block in self.nodes()])
        bias = torch.cat([block.classifier.bias for block in self.nodes()])
        cam, graph = cams.amax(dim=2), ((start + own) * rows).sum(dim=2) + bias
        return {"logits": self.share * (cam + graph), "cam": cam, "graph": graph}

    def links(self) -> Tensor:
        """The learned relation [K, K]: row c holds what class c takes from each class."""
        first, *later = self.nodes()
        whole: Tensor = first.takes
        for block in later:
            whole = torch.cat([torch.cat([whole, block.sends], dim=1), block.takes])
        return whole

    def relations(self, mixed: Tensor) -> Tensor:
        """The image's relation [B, K, K]: row c says how much class c takes from each class, a sigmoid of c's node beside
        the mean node of c's phase and older ones, times `opening` where the other class is younger."""
        ends = torch.tensor(self.splits).cumsum(0).tolist()
        means = torch.stack([mixed[:, :end].mean(dim=1) for end in ends], dim=2)  # [B, width, phases]
        around = F.leaky_relu(self.norm(self.context(means.transpose(1, 2)).transpose(1, 2)), SLOPE)
        parts = zip(around.split(1, dim=2), self.splits, strict=True)
        of_class = torch.cat([part.expand(-1, -1, size) for part, size in parts], dim=2)
        both = torch.cat([of_class.transpose(1, 2), mixed], dim=2)
        strength = torch.cat([block.relation(both) for block in self.nodes()], dim=2).sigmoid()
        opened = strength.new_ones(0, 0)
        for block in self.nodes():
            older, classes = block.opening.shape
            fresh = opened.new_ones(classes, older + classes)
            opened = torch.cat([torch.cat([opened, block.opening], dim=1), fresh])
        return strength * opened


class CSCConfig(LearnerConfig):
    """`alpha`: weight of the classification loss, 1 - alpha of the distillation. `entropy`: weight of H = -sum p log p, which
    is raised, over the columns in `scope`: all "seen" ones (the code) or the "old" ones (the paper). `join` of the two
    branches' logits: "mean" (the code) or "sum" (the paper). `width` of the nodes: half of the backbone's features
    unless given (1024 of 2048 in the code)."""

    alpha: float = Field(default=0.5, ge=0, le=1)
    entropy: float = Field(default=0.04, ge=0)
    scope: Literal["seen", "old"] = "seen"
    join: Literal["mean", "sum"] = "mean"
    width: int | None = Field(default=None, ge=1)


class CSC(Learner):
    """Predictor: "fc". alpha * BCE over visible cells + (1 - alpha) * soft BCE of the old columns against the teacher
    - entropy * H, batch mean; in the first phase the plain BCE.

    Label policy mask_current, memory capture_only. Du et al., ECCV 2024; the released code has no replay, so how CSC-R
    trains on exemplars is unknown: here their visible columns join the classification loss. Its heads and graph layers
    are replaced at every expansion but never reach its one optimiser, so that new rows stay as they were drawn: a
    mistake that is not repeated. Of our own are the zeros of new-to-old links (the code draws them, which changes old
    logits at once) and that a class's context is the mean node of its own and older phases, not of all classes.
    """

    title = "CSC"
    Config = CSCConfig
    needs = Needs(labels=frozenset({"multi"}), head=frozenset({"csc"}), teacher=True)
    cfg: CSCConfig

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_head("csc", width=self.cfg.width, join=self.cfg.join)

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        ce, teacher = self.classification_loss(batch, out.logits), self.teacher_logits(batch)
        if teacher is None:
            return {"ce": ce}
        n_old = teacher.shape[1]
        kd = soft_bce(out.logits[:, :n_old], teacher)
        spread = entropy(out.logits[:, :n_old] if self.cfg.scope == "old" else out.logits)
        alpha = self.cfg.alpha
        return {"ce": alpha * ce, "kd": (1 - alpha) * kd, "entropy": -self.cfg.entropy * spread}


def entropy(logits: Tensor) -> Tensor:
    """-sum over classes of p log p, p = sigmoid of logits [B, K], batch mean, in nats; not the (1 - p) half, as in CSC."""
    return -(logits.sigmoid() * F.logsigmoid(logits)).sum(dim=1).mean()
