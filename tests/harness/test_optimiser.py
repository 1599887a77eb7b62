"""Optimisers by parameter name, the rates and momenta that they get, and their buffers, against torch's own."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.network.selectors import set_modes
from imbcil.harness.optimiser import NamedOptimiser
from imbcil.harness.pools import Pool
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Group, Stage

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


def network() -> Network:
    torch.manual_seed(0)
    net = Network(NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind="linear")), Runtime())
    net.grow(3)
    net.grow(2)
    return net


def optimiser(net: Network, optim: Optimisation, *groups: Group) -> NamedOptimiser:
    made = NamedOptimiser(net, Stage("train", Pool.empty(), optim, train=groups or (Group("all"),)))
    made.set_learning_rates(0, 0, 1)
    return made


def backward(net: Network, scale: float = 1.0) -> None:
    (scale * nn.functional.cross_entropy(net(IMAGES).logits, TARGETS)).backward()


def trained(net: Network, made: NamedOptimiser, steps: int = 3) -> dict[str, Tensor]:
    for _ in range(steps):
        made.zero_grad()
        backward(net)
        made.step()
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def reference(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int = 3, bound=None
) -> dict[str, Tensor]:
    """The same steps by torch's own optimiser."""
    net = network()
    theirs = make(list(net.parameters()))
    for _ in range(steps):
        theirs.zero_grad()
        backward(net)
        if bound is not None:
            bound(net.parameters())
        theirs.step()
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_steps_as_torchs_does(nesterov: bool):
    optim = Optimisation(lr=0.1, momentum=0.9, weight_decay=5e-3, nesterov=nesterov)
    net = network()
    mine = trained(net, optimiser(net, optim))
    assert_same(
        mine, reference(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=5e-3, nesterov=nesterov))
    )


def test_adam_steps_as_torchs_does():
    net = network()
    mine = trained(net, optimiser(net, Optimisation(kind="adam", lr=0.01, weight_decay=1e-3)))
    assert_same(mine, reference(lambda p: torch.optim.Adam(p, 0.01, weight_decay=1e-3)))


@pytest.mark.parametrize(
    ("optim", "bound"),
    [
        (Optimisation(lr=0.1, clip_norm=0.05), lambda p: nn.utils.clip_grad_norm_(p, 0.05)),
        (Optimisation(lr=0.1, clamp=0.01), lambda p: nn.utils.clip_grad_value_(p, 0.01)),
    ],
)
def test_gradients_are_bounded_as_asked(optim: Optimisation, bound):
    net = network()
    mine = trained(net, optimiser(net, optim))
    expected = reference(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), bound=bound)
    assert_same(mine, expected)
    free = reference(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    assert any(not torch.allclose(mine[name], free[name], atol=1e-4) for name in mine)


def test_only_gradients_of_the_stages_own_parameters_count_for_the_norm():
    net = network()
    made = optimiser(net, Optimisation(lr=1.0, momentum=0, clip_norm=1.0), Group("head"))
    backward(net, scale=1000)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    made.step()
    moved = torch.cat([(value - before[name]).flatten() for name, value in net.named_parameters()])
    assert float(moved.detach().norm()) == pytest.approx(1.0, rel=1e-4)


def test_a_parameter_belongs_to_the_first_group_that_selects_it():
    net = network()
    made = optimiser(net, Optimisation(lr=0.1), Group("head.new", lr=10), Group("head"), Group("all", lr=0.5))
    assert [group["lr"] for group in made.torch.param_groups] == pytest.approx([1.0, 0.1, 0.05])
    assert [len(group["params"]) for group in made.torch.param_groups] == [
        2,
        2,
        len(list(net.parameters())) - 4,
    ]
    assert set(made.names) == {name for name, _ in net.named_parameters()}


def test_groups_scale_the_rate_replace_the_decay_and_may_bring_a_schedule():
    optim = Optimisation(lr=0.2, epochs=4, weight_decay=1e-3, schedule="multistep", milestones=(1,))
    groups = (Group("head", wd=0.0, schedule=lambda epoch, epochs: epoch / epochs), Group("all", lr=0.5))
    made = optimiser(network(), optim, *groups)
    assert [group["weight_decay"] for group in made.torch.param_groups] == [0.0, 1e-3]
    made.set_learning_rates(3, 0, 1)
    assert [group["lr"] for group in made.torch.param_groups] == pytest.approx([0.2 * 3 / 4, 0.2 * 0.5 * 0.1])


def test_biases_and_norms_may_be_spared_weight_decay_where_a_group_has_none_of_its_own():
    net, optim = network(), Optimisation(weight_decay=0.1, spare_norms=True)
    net.register_parameter("token", nn.Parameter(torch.zeros(4)))
    made = optimiser(net, optim, Group("head", wd=0.2), Group("all", lr=0.5))
    names = {id(value): name for name, value in net.named_parameters()}
    decays = {
        names[id(value)]: member["weight_decay"]
        for member in made.torch.param_groups
        for value in member["params"]
    }
    assert len(decays) == len(names)
    for name, value in net.named_parameters():
        spared = name.endswith("bias") or (value.ndim == 1 and name != "token")
        assert decays[name] == (0.2 if name.startswith("head") else 0.0 if spared else 0.1), name
    assert set(decays.values()) == {0.0, 0.1, 0.2}
    assert [member["lr"] for member in made.torch.param_groups] == pytest.approx([0.1, 0.05, 0.05])


def test_the_plateaus_factor_scales_the_rate():
    made = optimiser(network(), Optimisation(lr=0.2, schedule="plateau"))
    made.set_learning_rates(5, 0, 1, plateau=0.01)
    assert made.torch.param_groups[0]["lr"] == pytest.approx(0.002)


def test_the_published_schedule_in_numbers():
    optim = Optimisation(epochs=160, lr=0.1, schedule="multistep", milestones=(80, 120), factor=0.1)
    made = optimiser(network(), optim)
    rates = {}
    for epoch in (0, 79, 80, 119, 120, 159):
        made.set_learning_rates(epoch, 0, 5)
        rates[epoch] = made.torch.param_groups[0]["lr"]
    assert list(rates.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 4), (3, 1), (5, 7)])
@pytest.mark.parametrize(("kind", "key"), [("adam", "betas"), ("sgd", "momentum")])
def test_momentum_cycles_against_the_rate_as_torchs_does(kind: str, key: str, epochs: int, steps: int):
    optim = Optimisation(kind=kind, epochs=epochs, schedule="one_cycle", peak=0.2, cycle_momentum=True)
    value = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.Adam([value]) if kind == "adam" else torch.optim.SGD([value], momentum=0.9)
    torchs = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.1, total_steps=epochs * steps, pct_start=0.2)
    made = optimiser(network(), optim)
    for number, (epoch, step) in enumerate(itertools.product(range(epochs), range(steps))):
        if number:
            theirs.step()
            torchs.step()
        made.set_learning_rates(epoch, step, steps)
        (ours,), (expected,) = made.torch.param_groups, theirs.param_groups
        assert ours[key] == pytest.approx(expected[key])
        assert ours["lr"] == pytest.approx(expected["lr"])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_frozen_parameters_are_moved_by_nothing_not_even_decay_or_momentum(kind: str):
    net = network()
    made = optimiser(net, Optimisation(kind=kind, lr=0.1, weight_decay=0.1))
    trained(net, made)  # momentum is there now
    net.requires_grad_(False)
    net.head.blocks[1].requires_grad_(True)
    set_modes(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = optimiser(net, Optimisation(kind=kind, lr=0.1, weight_decay=0.1), Group("head.new"))
    trained(net, made)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.blocks.1.weight", "head.blocks.1.bias"}


def test_an_empty_old_head_may_be_a_group():
    torch.manual_seed(0)
    net = Network(NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind="linear")), Runtime())
    net.grow(5)
    made = optimiser(net, Optimisation(lr=0.1), Group("all", "-head.old"), Group("head.old", lr=0.1))
    assert len(trained(net, made)) == len(list(net.parameters()))


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_goes_on_from_saved_buffers_bit_for_bit(kind: str):
    optim = Optimisation(kind=kind, lr=0.05, weight_decay=1e-3)
    whole = network()
    made = optimiser(whole, optim)
    trained(whole, made, 2)
    held = {name: {key: item.clone() for key, item in part.items()} for name, part in made.to_state().items()}
    resumed = network()
    resumed.load_state_dict(whole.state_dict())
    other = optimiser(
        resumed, optim, Group("head"), Group("all")
    )  # by name: the order of groups is no matter
    other.load_state(held)
    first, second = trained(whole, made, 2), trained(resumed, other, 2)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert set(held) == {name for name, _ in whole.named_parameters()}


def test_momentum_that_is_left_out_shows():
    whole = network()
    made = optimiser(whole, Optimisation(lr=0.05))
    trained(whole, made, 2)
    forgetful = network()
    forgetful.load_state_dict(whole.state_dict())
    first, second = (
        trained(whole, made, 2),
        trained(forgetful, optimiser(forgetful, Optimisation(lr=0.05)), 2),
    )
    assert not any(torch.equal(value, second[name]) for name, value in first.items())


def test_a_parameter_without_a_gradient_has_no_buffer_and_loads_without_one():
    net = network()
    net.add_backbone(aux=2)  # nothing here trains the auxiliary head
    made = optimiser(net, Optimisation(lr=0.1))
    trained(net, made, 1)
    state = made.to_state()
    assert "aux.weight" not in {name for name, held in state.items() if held}
    optimiser(net, Optimisation(lr=0.1)).load_state(state)
