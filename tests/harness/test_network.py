"""Networks: rebuilding, growing, copying, selecting parameters, calibrators, modes."""

from typing import Any

import pytest
import torch
from torch import nn

from imbcil.harness.base.errors import ContractViolation, UnknownName
from imbcil.harness.network.backbones import BACKBONES
from imbcil.harness.network.calibration import Calibrator, CalibratorSpec
from imbcil.harness.network.network import ModuleSpec, NetSpec, Network, clone, freeze
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.network.selectors import select, set_modes

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0], [0.0, 1.0, 3.0, 0.5]])


def network(*splits: int, head: str = "linear", **spec: Any) -> Network:
    torch.manual_seed(0)
    full = NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind=head), **spec)
    net = Network(full, Runtime())
    for classes in splits:
        net.grow(classes)
    return net


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def names(net: Network, *selectors: str) -> set[str]:
    return set(select(net, selectors))


def all_names(net: Network) -> set[str]:
    return {name for name, _ in net.named_parameters()}


# --- structure ----------------------------------------------------------------------------------------------------


def test_a_forward_pass_gives_raw_logits_features_and_maps():
    net = network(3, 2).eval()
    out = net(images())
    assert out.logits.shape == (4, 5)
    assert out.features.shape == (4, net.dim) == (4, 16)
    assert [part.shape[1] for part in out.maps] == [8, 16, 16]
    torch.testing.assert_close(out.logits, out.features @ net.head.weight.T + net.head.bias)
    assert out.extras == {}


def test_the_spec_rebuilds_the_network_as_it_is_now():
    net = network(3, head="cosine", calibrators={"bic": CalibratorSpec(tie="phase")})
    net.add_backbone(aux=4)
    net.grow(2)
    again = Network(NetSpec.model_validate_json(net.spec().model_dump_json()), Runtime())
    again.load_state_dict(net.state_dict())
    assert again.spec() == net.spec()
    mine, theirs = net.eval()(images()), again.eval()(images())
    assert torch.equal(mine.logits, theirs.logits)
    assert torch.equal(mine.extras["aux"], theirs.extras["aux"])


def test_growing_leaves_old_logits_alone():
    net = network(3).eval()
    before = net(images()).logits
    net.grow(2)
    assert net.n_classes == 5
    torch.testing.assert_close(net(images()).logits[:, :3], before, rtol=1e-6, atol=1e-6)


def test_an_added_backbone_with_zero_columns_keeps_the_old_logits():
    net = network(3).eval()
    before = net(images())
    net.add_backbone(aux=4, cross="zero")
    after = net.eval()(images())
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(after.features[:, :16], before.features)
    assert after.features.shape == (4, 32)
    assert after.extras["aux"].shape == (4, 4)


def test_an_added_backbone_is_a_copy_of_the_last_one_with_parameters_of_its_own():
    net = network(3)
    net.add_backbone()
    first, second = (dict(part.state_dict()) for part in net.backbones)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not {v.data_ptr() for v in first.values()} & {v.data_ptr() for v in second.values()}
    assert net.aux is None


def test_an_added_backbone_may_start_afresh_with_drawn_columns():
    net = network(3).eval()
    before = net(images()).logits
    net.add_backbone(copy=False)
    first, second = (part.conv1.weight for part in net.backbones)
    assert not torch.equal(first, second)
    assert not torch.allclose(net.eval()(images()).logits, before, atol=1e-4)


def test_a_later_backbone_without_an_auxiliary_head_drops_the_old_one():
    net = network(3)
    net.add_backbone(aux=4)
    net.add_backbone()
    assert net.aux is None
    assert net.spec().aux == 0
    assert len(net.spec().backbones) == 3


def test_a_shared_trunk_runs_once_before_every_backbone(monkeypatch):
    class Stem(nn.Module):
        dim, opts = 3, {}

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return {"x": self.scale * x, "maps": [x]}

    monkeypatch.setitem(BACKBONES, "stem", Stem)
    net = network(3, trunk=ModuleSpec(kind="stem"))
    net.add_backbone()
    net.eval()
    out = net(images())
    assert net.trunk.calls == 1
    assert len(out.maps) == 4
    torch.testing.assert_close(out.features[:, :16], net.backbones[0](2 * images())["features"])
    assert names(net, "trunk") == {"trunk.scale"}


def test_an_unknown_backbone_is_answered():
    with pytest.raises(UnknownName, match="There is no backbone called 'tinny'; did you mean tiny"):
        Network(NetSpec(backbones=(ModuleSpec(kind="tinny"),), head=ModuleSpec(kind="linear")), Runtime())


def test_autocast_covers_the_backbones_and_leaves_the_head_in_float32():
    net = network(3).eval()
    net.runtime.autocast = torch.bfloat16
    out = net(images())
    assert out.maps[-1].dtype == torch.bfloat16
    assert out.features.dtype == out.logits.dtype == torch.float32
    torch.testing.assert_close(out.logits, out.features @ net.head.weight.T + net.head.bias)


# --- copies -------------------------------------------------------------------------------------------------------


def test_a_copy_has_the_same_values_modes_and_flags_but_nothing_shared():
    net = network(3, 1, calibrators={"lws": CalibratorSpec()})
    net.backbones[0].layer1.eval()
    net.backbones[0].conv1.weight.requires_grad_(False)
    copy = clone(net)
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in net.state_dict().items())
    assert [m.training for m in copy.modules()] == [m.training for m in net.modules()]
    assert [p.requires_grad for p in copy.parameters()] == [p.requires_grad for p in net.parameters()]
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in copy.parameters()}


def test_copying_draws_nothing_from_the_global_generator():
    net = network(3)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    clone(net)
    assert torch.equal(before, torch.get_rng_state())


def test_a_teacher_is_in_evaluation_mode_and_takes_no_gradient():
    net = network(3)
    teacher = freeze(net)
    assert not any(module.training for module in teacher.modules())
    assert not any(value.requires_grad for value in teacher.parameters())
    assert all(value.requires_grad for value in net.parameters())
    assert net.training


@pytest.mark.parametrize("copying", [clone, freeze])
def test_a_wrapped_network_cannot_be_copied(copying):
    net = network(3)
    net.wraps["more"] = ["backbones.0.conv1"]
    with pytest.raises(ContractViolation, match="wrapped by more cannot be copied; unwrap it first"):
        copying(net)


# --- selectors ----------------------------------------------------------------------------------------------------


def test_all_means_everything_but_calibrators():
    net = network(2, 3, calibrators={"lws": CalibratorSpec()})
    assert names(net, "all") == {name for name in all_names(net) if "calibrators" not in name}


def test_the_head_has_an_old_and_a_new_part():
    net = network(2, 3, 1, head="cosine")
    assert names(net, "head.new") == {"head.scale", "head.blocks.2.weight"}
    assert names(net, "head.old") == {"head.blocks.0.weight", "head.blocks.1.weight"}
    assert names(net, "head") == names(net, "head.new") | names(net, "head.old")


def test_the_old_head_of_the_first_phase_is_empty_and_no_error():
    net = network(2)
    assert names(net, "head.old") == set()
    assert names(net, "all", "-head.old") == all_names(net)


def test_the_newest_backbone_can_be_named():
    net = network(2)
    net.add_backbone(aux=3)
    assert all(name.startswith("backbones.1.") for name in names(net, "backbones.-1"))
    assert names(net, "backbones") == names(net, "backbones.0") | names(net, "backbones.-1")
    assert names(net, "aux") == {"aux.weight", "aux.bias"}


def test_calibrators_are_chosen_by_name_phase_and_glob():
    net = network(2, 3, calibrators={"lws": CalibratorSpec(), "bic": CalibratorSpec(tie="phase")})
    assert names(net, "calibrators.lws.*.a") == {f"calibrators.lws.blocks.{phase}.a" for phase in (0, 1)}
    assert names(net, "calibrators.bic.new") == {f"calibrators.bic.blocks.1.{name}" for name in "ab"}
    assert len(names(net, "calibrators")) == 8


def test_a_minus_removes_and_order_matters():
    net = network(2, 3)
    assert names(net, "head", "-head.new") == names(net, "head.old")
    assert names(net, "-head.new", "head") == names(net, "head")
    assert names(net, "all", "-backbones") == names(net, "head")


def test_the_eleventh_phase_is_not_the_first_and_a_prefix_ends_at_a_dot():
    net = network(*[1] * 11)
    assert names(net, "head.new") == {"head.blocks.10.weight", "head.blocks.10.bias"}
    assert names(net, "head.1") == {"head.blocks.1.weight", "head.blocks.1.bias"}
    with pytest.raises(ContractViolation):
        select(net, ("hea",))


@pytest.mark.parametrize("word", ["heads", "aux", "trunk", "backbones.1", "calibrators.lws.new", "-aux", ""])
def test_a_selector_that_matches_nothing_is_an_error(word: str):
    with pytest.raises(ContractViolation, match="matches no parameter"):
        select(network(2), ("all", word))


# --- modes --------------------------------------------------------------------------------------------------------


def frozen_first_layer() -> Network:
    net = network(2)
    for value in select(net, ("backbones.0.layer1",)).values():
        value.requires_grad_(False)
    return net


def statistics(net: Network, layer: str) -> torch.Tensor:
    return net.get_submodule(f"backbones.0.{layer}.0.bn1").running_mean.clone()


@pytest.mark.parametrize(
    ("live", "moves"), [((), False), (("backbones.0.layer1",), True), (("head",), False)]
)
def test_statistics_of_frozen_modules_rest_unless_they_are_live(live: tuple[str, ...], moves: bool):
    net = frozen_first_layer()
    set_modes(net, live)
    before = [statistics(net, layer) for layer in ("layer1", "layer2")]
    net(images())
    assert torch.equal(statistics(net, "layer1"), before[0]) is not moves
    assert not torch.equal(statistics(net, "layer2"), before[1])


def test_modes_return_to_training_once_nothing_is_frozen():
    net = frozen_first_layer()
    set_modes(net)
    net.requires_grad_(True)
    set_modes(net)
    assert all(module.training for module in net.modules())


# --- calibrators --------------------------------------------------------------------------------------------------


def calibrator(*splits: int, **spec: Any) -> Calibrator:
    made = Calibrator(CalibratorSpec(**spec))
    for classes in splits:
        made.grow(classes)
    return made


@pytest.mark.parametrize("tie", ["class", "phase"])
def test_a_fresh_calibrator_changes_nothing(tie: str):
    assert torch.equal(calibrator(1, 3, tie=tie)(LOGITS), LOGITS)


def test_each_class_has_its_own_line():
    made = calibrator(2, 2)
    made.set(a=torch.tensor([1.0, 2, 3, 4]), b=torch.tensor([10.0, 20, 30, 40]))
    assert made(LOGITS).tolist() == [[12, 20, 33, 36], [10, 22, 39, 42]]
    assert [block.a.tolist() for block in made.blocks] == [[1, 2], [3, 4]]


def test_tied_classes_share_one_line_a_phase_and_one_gradient():
    made = calibrator(1, 3, tie="phase")
    made.set(a=torch.tensor([1.0, 5, 6, 7]))
    assert [block.a.tolist() for block in made.blocks] == [[1], [5]]
    a, b = made.vectors()
    assert (a.tolist(), b.tolist()) == ([1, 5, 5, 5], [0, 0, 0, 0])
    made(LOGITS).sum().backward()
    assert made.blocks[1].a.grad.tolist() == [float(LOGITS[:, 1:].sum())]
    assert made.blocks[1].b.grad.tolist() == [6]  # 2 rows of 3 classes


def test_a_conditional_calibrator_acts_only_where_a_new_class_wins():
    made = calibrator(1, 3, condition="argmax_new")
    made.set(b=torch.tensor([100.0, 100, 0, 0]))
    calibrated = made(LOGITS)
    assert torch.equal(calibrated[0], LOGITS[0])  # class 0 wins: old
    assert calibrated[1].tolist() == [100, 101, 3, 0.5]


def test_growing_keeps_the_values_of_older_blocks_and_their_dtype():
    made = calibrator(2)
    made.set(a=torch.tensor([2.0, 3.0]))
    made.double().grow(1)
    assert made.vectors()[0].tolist() == [2, 3, 1]
    assert made.blocks[1].a.dtype == torch.float64


def test_calibrators_act_where_they_are_active_in_the_order_of_the_spec():
    spec = {
        "first": CalibratorSpec(active=("test", "teacher")),
        "second": CalibratorSpec(active=("test",)),
        "third": CalibratorSpec(active=("train",)),
    }
    net = network(2, calibrators=spec).eval()
    net.calibrators["first"].set(b=torch.tensor([1.0, 1.0]))
    net.calibrators["second"].set(a=torch.tensor([3.0, 3.0]))
    net.calibrators["third"].set(a=torch.tensor([0.0, 0.0]))
    out = net(images())
    torch.testing.assert_close(net.calibrated(out, "test"), 3 * (out.logits + 1))
    torch.testing.assert_close(net.calibrated(out, "teacher"), out.logits + 1)
    assert not net.calibrated(out, "train").any()


def test_without_calibrators_the_logits_are_the_raw_ones():
    net = network(2)
    out = net(images())
    assert net.calibrated(out, "test") is out.logits
