"""AGCN: classifiers made by a graph network over the labels' co-occurrence, which grows with them (Du et al., ICME 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Batch, Learner, Needs, NetSpec, Outputs, Phase, Stage
from imbcil.harness.label_graph import across, conditional, linked, normalised
from imbcil.harness.losses import soft_bce
from imbcil.harness.network.heads import Block, Head, register_head
from imbcil.harness.stages import Group
from imbcil.harness.word_vectors import WordsConfig, class_vectors

SLOPE = 0.2  # of the leaky ReLU between the two graph layers
SPREAD = 0.4  # standard deviation of learned node inputs when they are drawn


@register_head("agcn")
class AGCNHead(Head):
    """z = h N^T, N = A LeakyReLU(A X W1) W2: a block's `weight` holds its classes' inputs X, `graph` is A [K, K]. A new class
    is linked to itself alone until the learner fills its rows and columns in. extras: "nodes" [K, dim], N."""

    use_bias = False
    graph: Tensor

    def __init__(self, dim: int, width: int = 300, hidden: int = 1024) -> None:
        super().__init__(dim)
        self.width = width
        self.first = nn.Parameter(torch.empty(width, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.second = nn.Parameter(torch.empty(hidden, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.register_buffer("graph", torch.zeros(0, 0))

    def grow(self, classes: int) -> None:
        block = Block(classes, self.width, bias=False).to(self.first)
        nn.init.normal_(block.weight, std=SPREAD)
        self.graph = torch.block_diag(self.graph, torch.eye(classes).to(self.graph))
        self.blocks.append(block)
        self.splits.append(classes)

    @property
    def weight(self) -> Tensor:
        """The classifiers N [K, dim]."""
        inputs = torch.cat([block.weight for block in self.blocks])  # type: ignore[misc]
        hidden = F.leaky_relu(self.graph @ (inputs @ self.first), SLOPE)
        return self.graph @ (hidden @ self.second)

    def forward(self, features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        nodes = self.weight
        return {"logits": features @ nodes.T, "nodes": nodes}


class AGCNConfig(WordsConfig):
    """`classification`, `distillation`, `nodes`: weights of the three terms (the paper's; the code leaves them undefined).

    `edges`: "binary", conditional probabilities from `threshold` on (`cross_threshold` between old and new classes)
    become `scale` divided among a column's links, as in the code, or "conditional", the probabilities themselves.
    `words`: a file of word vectors as nodes' inputs, which then rest; without it inputs of `width` numbers are learned.
    `hidden`: width between the graph's layers.
    """

    classification: float = Field(default=0.07, ge=0)
    distillation: float = Field(default=0.93, ge=0)
    nodes: float = Field(default=1e5, ge=0)
    edges: Literal["binary", "conditional"] = "binary"
    threshold: float = Field(default=0.4, ge=0, le=1)
    cross_threshold: float = Field(default=0.3, ge=0, le=1)
    scale: float = Field(default=0.25, gt=0)
    width: int = Field(default=300, ge=1)
    hidden: int = Field(default=1024, ge=1)


class AGCN(Learner):
    """Predictor: "fc". BCE over visible cells, soft BCE of old columns and the squared distance of old nodes against the
    teacher's; in the first phase the plain BCE. The graph is counted once, when a phase begins, from visible labels and
    the teacher's probabilities of its new images; the block of older classes stays.

    Label policy mask_current, memory capture_only (the paper has no memory). A reconstruction where paper and code are
    open: no word vectors are published, so inputs are learned unless `words` are given. Of the code's ways these are
    left out: a first phase that links all classes (0.28, exponent -0.8), counts that grow during its one epoch, softmax
    instead of sigmoid as soft labels, half of the reverse links, a smaller learning rate for the graph.
    """

    title = "AGCN"
    Config = AGCNConfig
    needs = Needs(labels=frozenset({"multi"}), head=frozenset({"agcn"}), teacher=True)
    reconstruction = True
    cfg: AGCNConfig

    @classmethod
    def check_classes(cls, cfg: AGCNConfig, names: Sequence[str]) -> None:
        if cfg.words and (found := class_vectors(Path(cfg.words), names).shape[1]) != cfg.width:
            raise BadInput(
                f"agcn.width = {cfg.width}, but {cfg.words} has vectors of {found} numbers; set agcn.width={found}."
            )

    def design(self, spec: NetSpec) -> NetSpec:
        return spec.with_head("agcn", width=self.cfg.width, hidden=self.cfg.hidden)

    @torch.no_grad()
    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if self.cfg.words:
            newest: Tensor = self.net.head.blocks[-1].weight  # type: ignore[assignment]
            newest.copy_(class_vectors(Path(self.cfg.words), phase.names[phase.cur]))
        self.link(phase)

    def link(self, phase: Phase) -> None:
        """Fill the rows and columns of the phase's classes in."""
        graph, old, cur, cfg = self.net.head.graph, phase.old, phase.cur, self.cfg
        assert isinstance(graph, Tensor)
        targets, mask = self.tools.targets(phase.new)
        assert mask is not None
        positive, known = (targets[:, cur] == 1).double(), mask[:, cur].double()
        within = self.links(conditional(positive, known), cfg.threshold)
        graph[cur, cur] = normalised(within + torch.eye(len(within))).to(graph)
        if phase.lo:
            soft = self.tools.sweep(phase.new, self.state["old"]).logits.sigmoid().double()
            forth, back = (self.links(part, cfg.cross_threshold) for part in across(soft, positive, known))
            graph[old, cur], graph[cur, old] = forth.to(graph), back.to(graph)

    def links(self, shares: Tensor, threshold: float) -> Tensor:
        """Weights of links from P(row | column)."""
        return shares if self.cfg.edges == "conditional" else linked(shares, threshold, self.cfg.scale)

    def stages(self, phase: Phase) -> list[Stage]:
        given = ("-head.*.weight",) if self.cfg.words else ()
        return [Stage("train", phase.memory + phase.new, self.cfg.train, (Group("all", *given),))]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        ce, teacher, cfg = self.classification_loss(batch, out.logits), self.teacher_outputs(batch), self.cfg
        if teacher is None:
            return {"ce": ce}
        n_old = teacher.logits.shape[1]
        kd = soft_bce(out.logits[:, :n_old], teacher.logits)
        moved = F.mse_loss(out.extras["nodes"][:n_old], teacher.extras["nodes"])
        return {"ce": cfg.classification * ce, "kd": cfg.distillation * kd, "nodes": cfg.nodes * moved}
