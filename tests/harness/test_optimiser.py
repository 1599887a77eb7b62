"""Optimisers by parameter name, learning rates and the plateau rule, against torch's own."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.network.selectors import set_modes
from imbcil.harness.optimiser import NamedOptimiser, Plateau
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


def test_the_plateaus_factor_scales_the_rate():
    made = optimiser(network(), Optimisation(lr=0.2, schedule="plateau"))
    made.set_learning_rates(5, 0, 1, plateau=0.01)
    assert made.torch.param_groups[0]["lr"] == pytest.approx(0.002)


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


# --- schedules ----------------------------------------------------------------------------------------------------


def torch_rates(make, steps: int) -> list[float]:
    weight = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([weight], lr=1.0)
    schedule = make(theirs)
    rates = []
    for _ in range(steps):
        rates.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("milestones", [(80, 120), (1,), (0, 3), (3, 3, 5), (200,)])
def test_multistep_is_torchs(milestones: tuple[int, ...]):
    optim = Optimisation(epochs=160, schedule="multistep", milestones=milestones, factor=0.2)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, list(milestones), 0.2), 160)
    assert [optim.lr_scale(epoch) for epoch in range(160)] == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [1, 2, 12, 90])
def test_cosine_is_torchs(epochs: int):
    optim = Optimisation(epochs=epochs, schedule="cosine")
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, epochs), epochs)
    assert [optim.lr_scale(epoch, 3, 7) for epoch in range(epochs)] == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (1, 4), (3, 1), (5, 7), (80, 10)])
def test_one_cycle_is_torchs_step_by_step(epochs: int, steps: int):
    optim = Optimisation(epochs=epochs, schedule="one_cycle")
    total = epochs * steps
    expected = torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=total, cycle_momentum=False), total
    )
    places = itertools.product(range(epochs), range(steps))
    assert [optim.lr_scale(epoch, step, steps) for epoch, step in places] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_a_constant_rate_stays(schedule: str):
    optim = Optimisation(epochs=9, schedule=schedule)
    assert {optim.lr_scale(epoch, step, 5) for epoch in range(9) for step in range(5)} == {1.0}


def test_the_published_schedule_in_numbers():
    optim = Optimisation(epochs=160, lr=0.1, schedule="multistep", milestones=(80, 120), factor=0.1)
    made = optimiser(network(), optim)
    rates = {}
    for epoch in (0, 79, 80, 119, 120, 159):
        made.set_learning_rates(epoch, 0, 5)
        rates[epoch] = made.torch.param_groups[0]["lr"]
    assert list(rates.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_a_quarter_of_a_recipe_rounds_epochs_and_milestones_up():
    optim = Optimisation(epochs=161, schedule="multistep", milestones=(80, 121)).divided(4)
    assert (optim.epochs, optim.milestones) == (41, (20, 31))
    assert Optimisation(schedule="plateau", patience=5).divided(4).patience == 2  # epochs too
    assert Optimisation(epochs=1, schedule="plateau", patience=1).divided(4).patience == 1
    assert Optimisation(epochs=1).divided(4).epochs == 1
    assert Optimisation(epochs=0).divided(4).epochs == 0


def test_the_rate_rises_over_the_first_epochs_and_then_follows_its_schedule():
    """LDAM-DRW's CIFAR schedule in numbers: a fifth more each epoch, then 0.01 from epoch 160, 0.0001 from 180 on."""
    optim = Optimisation(epochs=200, schedule="multistep", milestones=(160, 180), factor=0.01, warmup=5)
    scales = [optim.lr_scale(epoch) for epoch in (0, 1, 4, 5, 159, 160, 179, 180)]
    assert scales == pytest.approx([0.2, 0.4, 1, 1, 1, 0.01, 0.01, 0.0001])
    quarter = optim.divided(4)
    assert (quarter.epochs, quarter.milestones, quarter.warmup) == (50, (40, 45), 2)
    assert optim.shortened(0.15).warmup == 1


def test_without_a_rise_settings_are_written_as_they_always_were():
    """Runs from before warm-up existed keep their identity."""
    assert "warmup" not in Optimisation().model_dump(mode="json")
    rising = Optimisation(warmup=3)
    assert rising.model_dump(mode="json")["warmup"] == 3
    assert Optimisation.model_validate(rising.model_dump(mode="json")) == rising


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_schedules_that_rise_or_wait_by_themselves_take_no_warm_up(schedule: str):
    with pytest.raises(ValueError, match=f"not {schedule}"):
        Optimisation(schedule=schedule, warmup=2)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": -1}, {"batch": 0}, {"lr": -0.1}, {"lr": float("nan")}, {"factor": 0}, {"factor": 1.5}, {"momentum": 1.0},
     {"weight_decay": -1e-4}, {"clip_norm": 0}, {"clamp": -1}, {"patience": 0}, {"milestones": (3,)}, {"warmup": -1},
     {"schedule": "multistep", "milestones": (-1,)}, {"kind": "adamw"}, {"epoch": 3}],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong)) if len(wrong) == 1 else "milestones"):
        Optimisation(**wrong)


# --- plateau ------------------------------------------------------------------------------------------------------

PATIENT = Optimisation(lr=0.1, schedule="plateau", patience=2, factor=0.1, lr_min=1e-3)


def scales(losses: list[float], optim: Optimisation = PATIENT) -> list[tuple[float, bool]]:
    plateau, seen = Plateau(), []
    for loss in losses:
        plateau.update(loss, optim)
        seen.append((round(plateau.scale, 9), plateau.stopped))
    return seen


def test_the_rate_falls_after_so_many_epochs_in_a_row_without_a_better_loss():
    assert scales([3, 2, 2, 2]) == [(1, False), (1, False), (1, False), (0.1, False)]  # equal is not better
    assert [scale for scale, _ in scales([3, 4, 2, 4, 1, 4])] == [1] * 6  # every other epoch is better


def test_patience_starts_anew_after_a_fall_but_the_best_loss_stays():
    assert [scale for scale, _ in scales([1, 2, 2, 1.5, 1.5])] == [1, 1, 0.1, 0.1, 0.01]


def test_the_stage_stops_once_the_rate_is_below_its_least():
    """0.1 -> 0.01 -> 0.001 (still allowed) -> 0.0001, each after two bad epochs."""
    seen = scales([1] + [2] * 6, PATIENT.model_copy(update={"lr_min": 9e-4}))
    assert [stopped for _, stopped in seen] == [False] * 6 + [True]


def test_a_loss_that_is_not_a_number_counts_as_no_better():
    assert scales([float("nan")] * 2)[-1] == (0.1, False)


def test_a_plateau_comes_back_from_its_state():
    plateau = Plateau()
    for loss in (1.0, 2.0, 2.0, 2.0):
        plateau.update(loss, PATIENT)
    again = Plateau(**plateau.to_state())
    assert again == plateau
    plateau.update(3.0, PATIENT)
    again.update(3.0, PATIENT)
    assert again == plateau
    assert again.scale == pytest.approx(0.01)
