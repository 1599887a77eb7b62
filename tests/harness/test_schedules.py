"""Learning rates by epoch and step, reduced recipes, and the plateau rule: settings alone, against torch's schedulers."""

import itertools

import pytest
import torch
from torch import nn

from imbcil.harness.optimiser import Plateau
from imbcil.harness.settings import Optimisation


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


def test_momentum_cycles_under_one_cycle_alone():
    with pytest.raises(ValueError, match="cycle_momentum needs schedule: one_cycle, not cosine"):
        Optimisation(schedule="cosine", cycle_momentum=True)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_a_constant_rate_stays(schedule: str):
    optim = Optimisation(epochs=9, schedule=schedule)
    assert {optim.lr_scale(epoch, step, 5) for epoch in range(9) for step in range(5)} == {1.0}


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
