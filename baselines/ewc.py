"""EWC: weights that mattered for old tasks are held by a quadratic penalty (Kirkpatrick et al., PNAS 2017)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.contract import Batch, Learner, LearnerConfig, Needs, Network, Outputs, Phase, Stage
from imbcil.harness.losses import mean_over, visible_bce
from imbcil.harness.pools import Pool


class EWCConfig(LearnerConfig):
    """`strength`: lambda. `clip`: no entry of the Fisher information exceeds it; unset, none is clipped.
    `merge`: weight of the old information when a phase's is added; unset, K_old / K. `labels` "predicted": the
    gradient at the network's own best class instead of the label. `batch`: images behind each squared gradient;
    1 gives the empirical Fisher information, larger ones the cheaper stand-in that released codes use."""

    strength: float = Field(default=1000.0, ge=0)
    clip: float | None = Field(default=1e-4, gt=0)
    merge: float | None = Field(default=None, ge=0, le=1)
    labels: Literal["true", "predicted"] = "true"
    batch: int = Field(default=128, ge=1)


class EWC(Learner):
    """Predictor: "fc". Cross-entropy over the phase's own classes plus strength / 2 * sum F (w - w*)^2 over all
    weights that there were; F is the mean squared gradient over batches, in evaluation mode; no memory. With several
    labels an image both use binary cross-entropy over the visible columns (mask_current).

    No row of the poster; `sound` is PyCIL's (30 / 13 on balanced CIFAR-100 in ten phases), `released` has the
    constants of FACIL and Long-Tailed-CIL, which hold the backbone alone. See docs/poster.md.
    """

    title = "EWC"
    Config = EWCConfig
    needs = Needs(labels=frozenset({"single", "multi"}), memory="none")
    presets = {
        "released": {"strength": 5000.0, "clip": None, "merge": 0.5, "labels": "predicted"},
        "sound": {},
    }
    cfg: EWCConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [Stage("train", phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = {"ce": self.own_classes(batch, out.logits)}
        if "fisher" not in self.state:
            return terms
        moved = flat(self.net, self.state["names"]) - self.state["anchor"]
        return {**terms, "ewc": self.cfg.strength / 2 * (self.state["fisher"] * moved.square()).sum()}

    def end_phase(self, phase: Phase) -> None:
        names = [name for name, _ in self.net.named_parameters() if not name.startswith("calibrators.")]
        fisher, share = self.information(phase.new, names), self.cfg.merge
        if "fisher" in self.state:
            share = phase.lo / phase.hi if share is None else share
            old = carried(self.state["fisher"], self.state["names"], names, self.net, fisher)
            fisher = share * old + (1 - share) * fisher
        self.state |= {"names": names, "fisher": fisher, "anchor": flat(self.net, names).detach().clone()}
        self.tools.log("fisher_mean", float(fisher.mean()))
        super().end_phase(phase)

    def information(self, pool: Pool, names: list[str]) -> Tensor:
        """Clipped Fisher information of the named weights, flat [P]."""
        weights = [self.net.get_parameter(name) for name in names]
        total, batches = torch.zeros_like(flat(self.net, names)).detach(), 0
        for images, labels in self.tools.grad_batches(pool, self.cfg.batch, self.net):
            logits = self.net(images).logits
            slopes = torch.autograd.grad(self.evidence(logits, labels), weights)
            total += torch.cat([slope.flatten() for slope in slopes]).square()
            batches += 1
        return (total / max(batches, 1)).clamp(max=self.cfg.clip or torch.inf)

    def evidence(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss whose squared gradient is the information: of the labels or of the network's own answer."""
        if self.multi:
            own = (logits.detach() > 0).to(logits)
            targets = torch.where(labels.isnan(), labels, own) if self.cfg.labels == "predicted" else labels
            return mean_over(visible_bce(logits, targets), ~labels.isnan())
        return F.cross_entropy(logits, logits.argmax(dim=1) if self.cfg.labels == "predicted" else labels)


def flat(net: Network, names: list[str]) -> Tensor:
    """The named weights one after the other [P], as the network uses them."""
    return torch.cat([net.effective(name).flatten() for name in names])


def carried(old: Tensor, held: list[str], names: list[str], net: Network, fresh: Tensor) -> Tensor:
    """`old` information in the order of `names`, with `fresh` for weights that were not there yet."""
    sizes = {name: net.get_parameter(name).numel() for name in names}
    parts = dict(zip(held, torch.split(old, [sizes[name] for name in held]), strict=True))
    fresh_parts = torch.split(fresh, list(sizes.values()))
    return torch.cat([parts.get(name, part) for name, part in zip(names, fresh_parts, strict=True)])
