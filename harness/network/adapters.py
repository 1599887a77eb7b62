"""Low-rank adapters (LoRA) on the queries and values of a vision transformer whose own weights rest.

What rests is held in buffers, not in parameters: no selector, optimiser or weight decay can reach it, and its names
stay those of the public weights. What is trained are the `LowRankAdapter`s: `adapters_of(net)` finds them by name in
any network. MORE's split for foundation models, frozen weights plus a general and a tail adapter, wraps these modules.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from imbcil.harness.base.errors import BadInput


class LowRankAdapter(nn.Module):
    """x [..., n_in] -> (up @ down @ x) / rank, [..., n_out]; zero at the start, as `up` is.

    LoRA (Hu et al., ICLR 2022) with the scaling and initialisation of LIFT (Shi et al., ICML 2024): `down`
    [rank, n_in] Kaiming, `up` [n_out, rank] zero, factor 1 / rank.
    """

    def __init__(self, n_in: int, n_out: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.down = nn.Parameter(torch.empty(rank, n_in))
        self.up = nn.Parameter(torch.zeros(n_out, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def delta(self) -> Tensor:
        """The change of the weight [n_out, n_in] that the adapter stands for."""
        return self.up @ self.down / self.rank

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.down), self.up) / self.rank

    @torch.no_grad()
    def take(self, change: Tensor) -> None:
        """Stand for the best approximation of a change [n_out, n_in] that the rank allows (Eckart & Young). `down` keeps
        its size, on which the pace of further training depends."""
        left, values, right = torch.linalg.svd(change.double().cpu(), full_matrices=False)
        size = float(self.down.norm()) / math.sqrt(self.rank) or 1.0
        self.down.copy_(size * right[: self.rank])
        self.up.copy_(self.rank / size * left[:, : self.rank] * values[: self.rank])


class AdaptedQkv(nn.Module):
    """A resting linear layer for queries, keys and values with an adapter each on queries and values.

    x [..., dim] -> [..., 3 dim]. `weight` and `bias` are buffers under the names of the layer that they replace.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        n_in, n_out = layer.in_features, layer.out_features // 3
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.q = LowRankAdapter(n_in, n_out, rank)
        self.v = LowRankAdapter(n_in, n_out, rank)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = functional.linear(x, self.weight, self.bias).chunk(3, dim=-1)
        return torch.cat([queries + self.q(x), keys, values + self.v(x)], dim=-1)

    def whole(self, part: Literal["q", "v"]) -> Tensor:
        """The weight [n_out, n_in] of the queries or of the values: what rests and what the adapter adds."""
        adapter: LowRankAdapter = getattr(self, part)
        return self._rows(part) + adapter.delta()

    @torch.no_grad()
    def absorb(self, part: Literal["q", "v"], change: Tensor) -> None:
        """Add a change [n_out, n_in] to the weight of the queries or of the values. The adapter takes what its rank
        allows, what rests takes the remainder, so that their sum is exact."""
        if not change.any():
            return
        adapter: LowRankAdapter = getattr(self, part)
        wanted = adapter.delta() + change
        adapter.take(wanted)
        self._rows(part).add_(wanted - adapter.delta())

    def _rows(self, part: Literal["q", "v"]) -> Tensor:
        return self.weight.chunk(3)[0 if part == "q" else 2]


def adapt(model: nn.Module, rank: int, name: str) -> None:
    """Put adapters on the queries and values of every attention of `model` and let all else rest, in place.

    Raises BadInput where no attention has one layer `qkv`, or `rank` is larger than that layer.
    """
    layers = [
        (path, layer)
        for path, layer in model.named_modules()
        if path.rpartition(".")[2] == "qkv" and isinstance(layer, nn.Linear)
    ]
    if not layers:
        raise BadInput(
            f"backbone.options.lora_rank: {name} has no attention with a layer qkv; use it without adapters."
        )
    widest = min(layer.in_features for _, layer in layers)
    if rank > widest:
        raise BadInput(f"backbone.options.lora_rank = {rank}: the layers of {name} are {widest} wide.")
    for module in model.modules():
        _rest(module)
    for path, layer in layers:
        model.get_submodule(path.rpartition(".")[0]).add_module("qkv", _adapted(layer, rank))


def adapters_of(net: nn.Module) -> dict[str, LowRankAdapter]:
    """Every adapter of a network by its module's name, in order."""
    return {name: module for name, module in net.named_modules() if isinstance(module, LowRankAdapter)}


def _rest(module: nn.Module) -> None:
    for name, value in list(module._parameters.items()):
        if value is not None:
            del module._parameters[name]
            module.register_buffer(name, value.detach())


def _adapted(layer: nn.Linear, rank: int) -> AdaptedQkv:
    return AdaptedQkv(layer, rank)
