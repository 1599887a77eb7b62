"""State: what goes into a checkpoint comes back bit for bit, and what cannot come back is refused by its path."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Plugin
from imbcil.harness.network.calibration import CalibratorSpec
from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.state import decode, encode


def round_trip(value: Any, rewrap: Plugins | None = None) -> Any:
    tree, tensors = encode(value)
    text = json.dumps(tree, allow_nan=False)  # what a checkpoint does
    return decode(json.loads(text), tensors, Runtime(), rewrap)


def network() -> Network:
    torch.manual_seed(0)
    spec = NetSpec(
        backbones=(ModuleSpec(kind="tiny", options={"last_relu": False}),),
        head=ModuleSpec(kind="cosine", options={"scale": 3.0}),
        calibrators={"bic": CalibratorSpec(tie="phase", active=("test", "teacher"))},
    )
    net = Network(spec, Runtime())
    net.grow(3)
    net.add_backbone(aux=4)
    net.grow(1)
    return net


def same_bits(left: Tensor, right: Tensor) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    first, second = (t.detach().contiguous().reshape(-1).view(torch.uint8).numpy() for t in (left, right))
    return bool(np.array_equal(first, second))


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, 1, -(2**70), "", "phase é\n\x00", [], {}, [None, [1, "a"]], {"a": {"b": [1, {}]}},
     {"$tensor": 1, "$dict": {"$float": "x"}, "a.b": 2, "": 3}],
    ids=repr,
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value: Any):
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-320, 1.7976931348623157e308, float("inf"), float("-inf")])
def test_floats_keep_every_bit(value: float):
    back = round_trip({"x": value})["x"]
    assert np.float64(back).tobytes() == np.float64(value).tobytes()


def test_not_a_number_stays_one():
    back = round_trip(float("nan"))
    assert back != back


def test_whole_floats_and_truth_values_do_not_become_integers():
    back = round_trip([1.0, True, 1])
    assert [type(item) for item in back] == [float, bool, int]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4, 5)])
def test_tensors_keep_type_shape_and_bits(dtype: torch.dtype, shape: tuple[int, ...]):
    value = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100).to(dtype)
    assert same_bits(round_trip([value])[0], value)


def test_odd_values_in_tensors_survive():
    value = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    assert same_bits(round_trip(value), value)


@pytest.mark.parametrize("learns", [True, False])
def test_tensors_keep_whether_they_learn(learns: bool):
    assert round_trip(torch.ones(2, requires_grad=learns)).requires_grad is learns


def test_views_and_other_layouts_come_back_with_their_values():
    value = torch.arange(24.0).reshape(2, 3, 2, 2)
    for view in (value.transpose(0, 1), value.to(memory_format=torch.channels_last), value[:, 1:2]):
        assert torch.equal(round_trip(view), view)


def test_what_comes_back_is_nobody_elses():
    tree, tensors = encode({"a": torch.zeros(2)})
    back = decode(tree, tensors, Runtime())
    back["a"] += 1
    assert tensors["state.a"].tolist() == [0, 0]


def test_a_network_comes_back_whole():
    net = network()
    net.backbones[0].requires_grad_(False)
    net.backbones[0].layer1.eval()
    with torch.no_grad():
        net.backbones[1].bn1.running_mean += 0.25
        net.calibrators["bic"].set(a=torch.tensor([2.0, 2, 2, 3]))
    back = round_trip({"net": net})["net"]
    assert back.spec() == net.spec()
    assert back.state_dict().keys() == net.state_dict().keys()
    assert all(same_bits(value, back.state_dict()[name]) for name, value in net.state_dict().items())
    flags = [{name: p.requires_grad for name, p in part.named_parameters()} for part in (net, back)]
    modes = [{name: m.training for name, m in part.named_modules()} for part in (net, back)]
    assert flags[0] == flags[1]
    assert modes[0] == modes[1]
    assert len(set(flags[0].values())) == len(set(modes[0].values())) == 2


def test_a_network_computes_the_same_after_it_came_back():
    net, images = network().eval(), torch.randn(3, 3, 8, 8)
    assert torch.equal(round_trip([net])[0](images).logits, net(images).logits)


def test_two_networks_with_related_names_are_kept_apart():
    first, second = network(), network()
    with torch.no_grad():
        second.head.blocks[0].weight.fill_(7)
    back = round_trip({"net": first, "net2": second})
    assert same_bits(back["net"].head.weight, first.head.weight)
    assert same_bits(back["net2"].head.weight, second.head.weight)


def test_rebuilding_a_network_draws_nothing_from_the_global_generator():
    tree, tensors = encode(network())
    torch.manual_seed(9)
    before = torch.get_rng_state()
    decode(tree, tensors, Runtime())
    assert torch.equal(before, torch.get_rng_state())


# --- refusals -----------------------------------------------------------------------------------------------------


class Own:
    """A type that no checkpoint knows."""


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"a": [1, Own()]}, r"^state\.a\.1 is a Own; state may hold"),
        ({"a": (1, 2)}, r"^state\.a is a tuple"),
        ({"s": {1, 2}}, r"^state\.s is a set"),
        ({"n": np.float64(1).astype(np.float32)}, r"^state\.n is a float32"),
        ({"n": np.zeros(2)}, r"^state\.n is a ndarray"),
        ({"n": np.int64(1)}, r"^state\.n is a int64"),
        ({"f": print}, r"^state\.f is a builtin_function"),
        ({"d": {3: "x"}}, r"^state\.d has keys that are not strings"),
        ({"m": nn.Linear(2, 2)}, r"^state\.m is a Linear"),
        ({"d": Path("a")}, r"^state\.d is a PosixPath"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_other_types_are_refused_with_their_path(value: Any, sentence: str):
    with pytest.raises(ContractViolation, match=sentence):
        encode(value)


def test_a_tensor_with_a_graph_is_refused():
    with pytest.raises(ContractViolation, match=r"state\.x\.0 is a tensor that carries a graph"):
        encode({"x": [torch.ones(2, requires_grad=True) * 2]})


def test_two_entries_that_share_memory_are_refused_with_both_paths():
    shared = torch.ones(4)
    with pytest.raises(ContractViolation, match=r"state\.b\.0 shares its memory with state\.a"):
        encode({"a": shared, "b": [shared.reshape(2, 2)]})


def test_parts_of_one_tensor_share_memory_too():
    whole = torch.ones(4)
    with pytest.raises(ContractViolation, match="shares its memory"):
        encode([whole[:2], whole[2:]])


def test_an_anchor_that_is_still_the_weight_is_refused_and_a_clone_is_not():
    net = network()
    weight = net.head.blocks[0].weight
    with pytest.raises(
        ContractViolation, match=r"anchor shares its memory with state\.net#head\.blocks\.0\.weight"
    ):
        encode({"net": net, "anchor": weight.detach()})
    assert torch.equal(round_trip({"net": net, "anchor": weight.detach().clone()})["anchor"], weight)


def test_one_network_under_two_names_is_refused():
    net = network()
    with pytest.raises(ContractViolation, match="shares its memory"):
        encode({"net": net, "old": net})


def test_empty_tensors_share_nothing():
    empty = torch.empty(0)
    assert round_trip({"a": empty, "b": empty})["b"].shape == (0,)


def test_two_paths_that_read_the_same_do_not_overwrite_each_other():
    """`a` holding `b.c`, and `a.b` holding `c`: a dotted parameter name is a common key."""
    back = round_trip({"a": {"b.c": torch.zeros(1)}, "a.b": {"c": torch.ones(1)}})
    assert back["a"]["b.c"].tolist() == [0]
    assert back["a.b"]["c"].tolist() == [1]


# --- wrapped networks ---------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(x)


class Scaling(Plugin):
    """Puts a factor around the first convolution of each backbone."""

    slots = ("wrap:conv",)

    def wants(self, stage: Any) -> bool:
        return True

    def wrap(self, net: Network, only: Any = None) -> list[str]:
        wrapped = list(only or ["backbones.0.conv1"])
        for name in wrapped:
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, Scaled(net.get_submodule(name)))
        return wrapped

    def unwrap(self, net: Network) -> None:
        net.backbones[0].conv1 = net.backbones[0].conv1.inner


def test_a_wrapped_network_comes_back_wrapped_where_it_was():
    net, plugins = network(), Plugins([Scaling(Scaling.Config(), "scaling")])
    net.wraps["scaling"] = plugins.items[0].wrap(net, only=["backbones.1.conv1"])
    with torch.no_grad():
        net.backbones[1].conv1.scale.fill_(3)
    back = round_trip(net, plugins)
    assert back.wraps == {"scaling": ["backbones.1.conv1"]}
    assert back.backbones[1].conv1.scale.tolist() == [3]
    assert not isinstance(back.backbones[0].conv1, Scaled)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.eval()(images).logits, net.eval()(images).logits)


def test_a_wrapped_network_needs_its_plug_in_to_come_back():
    net, plugins = network(), Plugins([Scaling(Scaling.Config(), "scaling")])
    net.wraps["scaling"] = plugins.items[0].wrap(net)
    for rewrap in (None, Plugins([])):
        with pytest.raises(ContractViolation, match="The checkpoint needs the plug-ins scaling"):
            round_trip(net, rewrap)
