"""MORE: weights W = W_g + B A whose low-rank part is pushed towards rare classes (Luo et al., NeurIPS 2025).

No code of the authors is public, so this is a reconstruction. Facts and open choices: docs/more.md.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Batch, Group, Learner, Network, Outputs, Phase, Plugin, Stage
from imbcil.harness.pools import Pool
from imbcil.methods.plugins._split import (
    KINDS,
    LowRank,
    Mapping,
    Scattered,
    Split,
    Start,
    absorb,
    divide,
    divisible,
    fold,
    general_only,
    general_weight,
    split_modules,
    tail_shapes,
    weight_shape,
)

Policy = Literal["merge", "keep", "freeze-stack", "resplit", "discard"]
Schedule = Literal["sine", "constant", "cosine", "rising"]


class MOREConfig(Frozen):
    """`amplitude`: A' = A / C, the peak weight of the discrepancy over the number of classes that the loader delivers;
    0 is the low-rank control, without a second pass. `schedule` over the stage's steps (or epochs, `per`): "sine" 0 ->
    A -> 0, "constant", "cosine" A -> 0, "rising" 0 -> A. `layers`: which trained layers of the backbones, or the adapters
    of a transformer that rests: their rank is what `rank_ratio` is of. `mapping`, `scale`, `init`: of B A. `split`: "random" frees as many entries at random places instead (a control).
    `policy`: what becomes of B A after a phase. `stages`: the learner's first stage of a phase, or all of its own.
    `norm`: BatchNorm of the general pass on batch or running statistics (with which the term is not 0 at B = 0). `stop`:
    no gradient through that branch.
    `form` with several labels an image: "per_label" weights each logit by its class's share of the images,
    "per_image" each image by the mean share of its positives. `decay`: whether weight decay acts on B A.
    """

    amplitude: float = Field(default=2.0, ge=0, le=20)
    schedule: Schedule = "sine"
    per: Literal["step", "epoch"] = "step"
    layers: Literal["conv", "linear", "both", "adapters"] = "conv"
    rank_ratio: float = Field(default=0.1, gt=0, le=1)
    mapping: Mapping = "matrix"
    scale: float = Field(default=1.0, gt=0)
    init: Start = "kaiming"
    split: Literal["low_rank", "random"] = "low_rank"
    policy: Policy = "merge"
    stages: Literal["first", "all"] = "first"
    norm: Literal["batch", "running"] = "batch"
    stop: Literal["none", "full", "general"] = "none"
    form: Literal["per_label", "per_image"] = "per_label"
    decay: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.policy == "resplit" and self.split == "random":
            raise ValueError("policy = resplit takes the best low-rank part, so it needs split = low_rank")
        return self


class MORE(Plugin):
    """L = L_base + alpha(tau) / |S| sum pi_y ||f(x; W_g + B A) - f(x; W_g)||^2 while the first stage of a phase trains;
    then W <- W_g + B A, before any copy, herding or further stage, so that no weight is left at inference.

    The logits are raw, of the classes that the loader delivers, cosines without their scale. State, by module name:
    `kept` {a, b}, `stacked`, `anchor`, for the policies that look back; `gap`, sums [2, K] for the log.
    """

    Config = MOREConfig
    slots: ClassVar[tuple[str, ...]] = ("wrap:conv",)
    needs_counts: ClassVar[bool] = True
    source: ClassVar[str] = "Luo et al., NeurIPS 2025"
    reconstruction: ClassVar[bool] = True
    remedies = {"more": "a smaller amplitude (--set more.amplitude=...)"}
    cfg: MOREConfig

    @classmethod
    def version_with(cls, cfg: MOREConfig) -> int:
        return (
            cls.version if cfg.policy in ("merge", "discard") else 2
        )  # the others forget layers that are gone

    # --- the split ----------------------------------------------------------------------------------------------

    def check_backbones(self, parts: Sequence[nn.Module]) -> str:
        modules = [item for part in parts for item in part.named_modules()]
        fitting = [layers for layers, kinds in KINDS.items() if divisible(modules, kinds)]
        if self.cfg.layers not in fitting:
            raise BadInput(
                f"{self.name}.layers = {self.cfg.layers}: nothing of the kind is trained in this backbone; use "
                f"--set {self.name}.layers={' or '.join(fitting)}, or leave {self.name} out."
            )
        share = _size(modules, KINDS[self.cfg.layers]) / _size(modules, (nn.Module,))
        if share >= 0.5:
            return ""
        choices = ", ".join(fitting)
        return f"{self.name}.layers = {self.cfg.layers} splits {share:.1%} of the backbone's weights; there are {choices}."

    def begin_phase(self, phase: Phase, learner: Learner) -> None:
        stages = list(learner.stages(phase))
        self.state["stages"] = [stage.name for stage in stages[: None if self.cfg.stages == "all" else 1]]
        self.state["phase"] = phase.index

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        if self.cfg.decay:
            return stages
        free = Group("?*.tail.*", wd=0.0)  # matches nothing until the stage's network is wrapped
        return [
            replace(stage, train=(free, *stage.train)) if self.wants(stage) else stage for stage in stages
        ]

    def wants(self, stage: Stage) -> bool:
        return stage.owner == "learner" and stage.name in self.state["stages"]

    def wrap(self, net: Network, only: Sequence[str] | None = None) -> list[str]:
        parts = [item for item in net.named_modules() if item[0].startswith(("trunk.", "backbones."))]
        names = list(divisible(parts, KINDS[self.cfg.layers]) if only is None else only)
        kind = LowRank if self.cfg.split == "low_rank" else Scattered
        for name in names:
            module = net.get_submodule(name)
            factors = tail_shapes(module, self.cfg.rank_ratio, self.cfg.mapping)
            tail = kind(weight_shape(module), factors, self.cfg.scale)
            divide(module, tail, stacks=self.cfg.policy == "freeze-stack")
        return names

    @torch.no_grad()
    def begin_stage(self, stage: Stage, learner: Learner) -> None:
        if self.name not in learner.net.wraps:
            return
        self.state["images"] = len(stage.pool) if isinstance(stage.pool, Pool) else 0
        self.state["gap"] = torch.zeros(2, learner.net.n_classes, device=learner.net.runtime.device)
        for name, module in split_modules(learner.net).items():
            generator = self.tools.gen("more", self.state["phase"], stage.name, name)
            module.tail.draw(self.cfg.init, generator)  # type: ignore[operator]
            self._look_back(name, module, general_weight(learner.net, name))
            absorb(
                learner.net, name, -module.added()
            )  # the function is what it was, whatever the tail starts from

    def _look_back(self, name: str, module: Split, weight: Tensor) -> None:
        """Put back what the policy kept of this layer, where it still has the same shape."""
        tail = module.tail
        kept = self.state.get("kept", {}).get(name, {})
        fits = {key: value.shape for key, value in kept.items()}
        if kept and fits == {key: value.shape for key, value in tail.state_dict().items()}:
            tail.load_state_dict(kept)
        stacked = self.state.get("stacked", {}).get(name)
        if stacked is not None and stacked.shape == weight.shape:
            module.stacked.copy_(stacked)
        if self.cfg.policy != "resplit":
            return
        anchors = self.state.setdefault("anchor", {})
        if name in anchors and anchors[name].shape == weight.shape:
            tail.take(weight - anchors[name])  # type: ignore[operator]
        else:
            anchors[name] = weight.detach().clone()

    @torch.no_grad()
    def end_stage(self, stage: Stage, learner: Learner) -> None:
        if self.name not in learner.net.wraps:
            return
        for name, module in split_modules(learner.net).items():
            if self.cfg.policy == "keep":
                values = module.tail.state_dict()
                self.state.setdefault("kept", {})[name] = {
                    key: value.clone() for key, value in values.items()
                }
            if self.cfg.policy == "freeze-stack":
                self.state.setdefault("stacked", {})[name] = module.added().clone()
        self._log(learner)

    def end_phase(self, phase: Phase, learner: Learner) -> None:
        """What the policies remember of a layer goes with it: the next network that FOSTER boosts never held this tail."""
        there = dict(learner.net.named_modules())
        for part in self.state.keys() & {"kept", "stacked", "anchor"}:
            self.state[part] = {name: value for name, value in self.state[part].items() if name in there}

    def unwrap(self, net: Network) -> None:
        for name in split_modules(net):
            fold(net, name, keep_tail=self.cfg.policy != "discard")

    # --- the loss -----------------------------------------------------------------------------------------------

    def extra_loss(self, batch: Batch, out: Outputs, learner: Learner) -> dict[str, Tensor]:
        net = learner.net
        if not self.cfg.amplitude or self.name not in net.wraps:
            return {}
        stopped = self.cfg.stop == "general"
        with general_only(net, self.cfg.norm), torch.no_grad() if stopped else nullcontext():
            general = compared_logits(net(batch.images))
        full = compared_logits(out)
        squares = ((full.detach() if self.cfg.stop == "full" else full) - general).square()
        loss, gaps = discrepancy(squares, batch, self.cfg.form, self.state["images"])
        if not batch.step:  # the log tells of the last epoch, which a plateau makes an early one
            self.state["gap"].zero_()
        shares = batch.label_shares(squares.shape[1])
        self.state["gap"] += torch.stack([(shares * gaps).sum(dim=0), shares.sum(dim=0)]).detach()
        share = batch.epoch * batch.steps / max(batch.total, 1) if self.cfg.per == "epoch" else batch.progress
        peak = self.cfg.amplitude * (batch.counts > 0).sum()
        return {"more": schedule_factor(self.cfg.schedule, share) * peak * loss}

    def _log(self, learner: Learner) -> None:
        extra = sum(
            value.numel() for part in split_modules(learner.net).values() for value in part.tail.parameters()
        )
        self.tools.log("more_extra_parameters", extra)
        if self.cfg.amplitude:
            total, rows = self.state["gap"]
            self.tools.log_per_class("more_discrepancy", total / rows.clamp(min=1))


def _size(modules: Sequence[tuple[str, nn.Module]], kinds: tuple[type[nn.Module], ...]) -> int:
    """Parameters that modules of these kinds hold themselves."""
    return sum(
        value.numel() for _, part in modules if isinstance(part, kinds) for value in part.parameters(False)
    )


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """alpha / A at `progress` in 0..1."""
    if schedule == "sine":
        return math.sin(math.pi * progress)
    if schedule == "constant":
        return 1.0
    falling = 0.5 * (1 + math.cos(math.pi * progress))
    return falling if schedule == "cosine" else 1 - falling


def compared_logits(out: Outputs) -> Tensor:
    """Raw logits [B, K], or similarities without the head's scale, by whose square the penalty would grow."""
    for name in ("cos", "similarity"):
        if name in out.extras:
            return out.extras[name]
    return out.logits


def discrepancy(
    squares: Tensor, batch: Batch, form: Literal["per_label", "per_image"], images: int
) -> tuple[Tensor, Tensor]:
    """(L_MORE, gap of each image and class [B, K] for the log) from squared differences of logits [B, K].

    One label an image: mean over images of pi_y times the sum over the delivered classes, pi = n / N; a mixed image
    has the mixed pi. Several: over the visible cells, by `form`, with n_c / `images` in the place of pi.
    """
    squares = squares * (batch.counts > 0)
    if batch.mask is not None:
        squares = squares * batch.mask
    if not batch.targets.is_floating_point():
        prior = batch.counts / batch.counts.sum().clamp(min=1)
        gaps = squares.sum(dim=1)
        weight = batch.label_shares(squares.shape[1]) @ prior
        return (weight * gaps).mean(), gaps.unsqueeze(1)
    prior = batch.counts / max(images, 1)
    if form == "per_label":
        return (prior * squares).sum(dim=1).mean(), squares
    positives = batch.label_shares(squares.shape[1])
    weight = (positives @ prior) / positives.sum(dim=1).clamp(min=1)
    return (weight * squares.sum(dim=1)).mean(), squares
