"""State: the only place where a learner or plug-in may keep what must survive a restart."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.network.network import NetSpec, Network
from imbcil.harness.network.runtime import Runtime

State = dict[str, Any]
Tree = Any  # what JSON can hold
ESCAPED = str.maketrans({"%": "%25", ".": "%2E", "#": "%23"})  # in keys: no two entries have one path


def encode(value: Any) -> tuple[Tree, dict[str, Tensor]]:
    """One JSON tree and one flat dict of tensors (CPU) from nested None, bool, int, float, str, Tensor, Network,
    list and dict. Raises ContractViolation with the path for other types, tensors that carry a graph, and two
    entries that share memory (the sharing would be lost on resume)."""
    tensors: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    tree = _encode(value, "state", tensors, owners)
    return tree, {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


def _encode(value: Any, path: str, tensors: dict[str, Tensor], owners: dict[int, str]) -> Tree:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"$float": value.hex()}  # JSON has no NaN, and hex keeps every bit
    if isinstance(value, Tensor):
        _claim(value, path, owners)
        if value.requires_grad and not value.is_leaf:
            raise ContractViolation(f"{path} is a tensor that carries a graph; detach and clone it.")
        tensors[path] = value
        return {"$tensor": path, "grad": value.requires_grad, "host": value.device.type == "cpu"}
    if isinstance(value, Network):
        return _encode_network(value, path, tensors, owners)
    if isinstance(value, list):
        return [_encode(item, f"{path}.{number}", tensors, owners) for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ContractViolation(f"{path} has keys that are not strings; a checkpoint cannot keep them.")
        return {
            "$dict": {
                key: _encode(item, f"{path}.{key.translate(ESCAPED)}", tensors, owners)
                for key, item in value.items()
            }
        }
    raise ContractViolation(
        f"{path} is a {type(value).__name__}; state may hold numbers, text, tensors and networks."
    )


def _encode_network(net: Network, path: str, tensors: dict[str, Tensor], owners: dict[int, str]) -> Tree:
    for name, tensor in net.state_dict(keep_vars=True).items():
        _claim(tensor, f"{path}#{name}", owners)
        tensors[f"{path}#{name}"] = tensor
    return {
        "$network": path,
        "spec": net.spec().model_dump(mode="json"),
        "wraps": net.wraps,
        "grad": [name for name, value in net.named_parameters() if value.requires_grad],
        "train": [name for name, module in net.named_modules() if module.training],
    }


def _claim(tensor: Tensor, path: str, owners: dict[int, str]) -> None:
    if not tensor.numel():
        return
    place = tensor.untyped_storage().data_ptr()
    if place in owners:
        raise ContractViolation(f"{path} shares its memory with {owners[place]}; store a clone.")
    owners[place] = path


class Rewrap:
    """Puts plug-ins' wrappers back onto a rebuilt network; structure only."""

    def __call__(self, net: Network, wraps: Mapping[str, list[str]]) -> None:
        if wraps:
            raise ContractViolation(f"The checkpoint needs the plug-ins {', '.join(wraps)}.")


def decode(tree: Tree, tensors: Mapping[str, Tensor], runtime: Runtime, rewrap: Rewrap | None = None) -> Any:
    """The value that `encode` took apart, on the runtime's device."""
    if isinstance(tree, list):
        return [decode(item, tensors, runtime, rewrap) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$float" in tree:
        return float.fromhex(tree["$float"])
    if "$tensor" in tree:
        device = "cpu" if tree["host"] else runtime.device
        return tensors[tree["$tensor"]].clone().to(device).requires_grad_(tree["grad"])
    if "$network" in tree:
        return _decode_network(tree, tensors, runtime, rewrap or Rewrap())
    return {key: decode(item, tensors, runtime, rewrap) for key, item in tree["$dict"].items()}


def _decode_network(tree: Tree, tensors: Mapping[str, Tensor], runtime: Runtime, rewrap: Rewrap) -> Network:
    with torch.random.fork_rng(devices=[]):
        net = Network(NetSpec.model_validate(tree["spec"]), runtime)
        rewrap(net, tree["wraps"])
    prefix = f"{tree['$network']}#"
    net.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )
    learns, trains = set(tree["grad"]), set(tree["train"])
    for name, value in net.named_parameters():
        value.requires_grad_(name in learns)
    for name, module in net.named_modules():
        _set_mode(module, name in trains)
    return net


def _set_mode(module: nn.Module, training: bool) -> None:
    module.training = training  # this module alone: children have their own entry
