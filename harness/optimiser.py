"""Optimisers whose buffers are known by parameter name, learning rates, and the plateau rule."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imbcil.harness.network.network import Network
from imbcil.harness.network.selectors import select
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Group, Stage


class NamedOptimiser:
    """One torch optimiser over a stage's groups; a parameter belongs to the first group that selects it."""

    def __init__(self, net: Network, stage: Stage) -> None:
        self.settings = stage.optim
        self.groups: list[Group] = []  # of each of torch's groups
        self.names: dict[str, nn.Parameter] = {}
        members: list[dict[str, Any]] = []
        for group in stage.train:
            fresh = {
                name: value for name, value in select(net, group.select).items() if name not in self.names
            }
            self.names |= fresh
            for names, decay in _by_decay(fresh, group, self.settings):
                self.groups.append(group)
                values = [fresh[name] for name in names]
                members.append({"params": values, "lr": self.settings.lr, "weight_decay": decay})
        self.torch = _build(self.settings, members, net.runtime.device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.names.values())

    def set_learning_rates(self, epoch: int, step: int, steps: int, plateau: float = 1.0) -> None:
        """And cycled momenta: a pure function of the place in the stage, but for the plateau's factor."""
        for group, member in zip(self.groups, self.torch.param_groups, strict=True):
            if group.schedule is not None:
                scale = group.schedule(epoch, self.settings.epochs)
            else:
                scale = self.settings.lr_scale(epoch, step, steps) * plateau
            member["lr"] = self.settings.lr * group.lr * scale
            if self.settings.cycle_momentum:
                momentum = self.settings.momentum_at(epoch, step, steps)
                member |= (
                    {"betas": (momentum, member["betas"][1])} if "betas" in member else {"momentum": momentum}
                )

    def step(self) -> None:
        """Bound the gradients as the stage asks, then step."""
        if self.settings.clamp is not None:
            nn.utils.clip_grad_value_(self.parameters, self.settings.clamp)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.torch.step()

    def zero_grad(self) -> None:
        self.torch.zero_grad(set_to_none=True)

    def to_state(self) -> dict[str, Any]:
        """Buffers by parameter name: momentum, moments, step counts."""
        buffers = {}
        for name, value in self.names.items():
            if held := self.torch.state.get(value):
                buffers[name] = {key: item for key, item in held.items() if isinstance(item, Tensor)}
        return buffers

    def load_state(self, state: dict[str, Any]) -> None:
        for name, held in state.items():
            value = self.names[name]
            self.torch.state[value] = {key: _laid_out_like(value, item) for key, item in held.items()}


def _by_decay(
    values: Mapping[str, nn.Parameter], group: Group, settings: Optimisation
) -> list[tuple[list[str], float]]:
    """Names that decay alike, with their weight decay. A group's own decay holds for all of it."""
    if group.wd is not None:
        return [(list(values), group.wd)]
    spared = [
        name for name, value in values.items() if settings.spare_norms and _is_shift_or_scale(name, value)
    ]
    decaying = [name for name in values if name not in spared]
    return [(decaying, settings.weight_decay), *([(spared, 0.0)] if spared else [])]


def _is_shift_or_scale(name: str, value: Tensor) -> bool:
    """A bias, or the weight of a normalisation; a token is neither."""
    return name.endswith(".bias") or (value.ndim == 1 and name.endswith(".weight"))


def _laid_out_like(value: Tensor, held: Tensor) -> Tensor:
    """A buffer in its parameter's memory layout: fused kernels walk both in step."""
    return torch.empty_like(value).copy_(held) if held.shape == value.shape else held


def _build(
    settings: Optimisation, members: list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    fused = device.type in ("cpu", "cuda") or None
    if settings.kind == "adam":
        return torch.optim.Adam(members, lr=settings.lr, fused=fused)
    return torch.optim.SGD(
        members, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused
    )


@dataclass
class Plateau:
    """Learning rate by patience: after `patience` epochs without a better validation loss the rate is multiplied
    by `factor`; below `lr_min` the stage stops. The rule of FACIL and Long-Tailed-CIL's iCaRL."""

    best: float = math.inf
    bad_epochs: int = 0
    scale: float = 1.0
    stopped: bool = False

    def update(self, loss: float, settings: Optimisation) -> None:
        if loss < self.best:
            self.best, self.bad_epochs = loss, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs < settings.patience:
            return
        self.bad_epochs = 0
        self.scale *= settings.factor
        self.stopped = settings.lr * self.scale < settings.lr_min

    def to_state(self) -> dict[str, Any]:
        return asdict(self)
