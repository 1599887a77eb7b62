"""`train.first_phase`: the first of several phases trains longer, in the same shape; nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
from tiny import RECIPE, tiny_runner, tiny_scenario

from imbcil.harness.contract import Phase
from imbcil.harness.phases import phase_steps
from imbcil.harness.settings import MemorySettings, Optimisation
from imbcil.harness.stages import Stage


def epochs_by_stage(runner: Any) -> list[tuple[int, str, int]]:
    """(phase, stage, epochs) of a whole run."""
    seen, original = [], runner._scheduled

    def watched(stage: Stage, phase: Phase) -> Stage:
        scheduled: Stage = original(stage, phase)
        seen.append((phase.index, stage.name, scheduled.optim.epochs))
        return scheduled

    runner._scheduled = watched
    runner.run()
    return seen


def longer(times: float) -> dict[str, Any]:
    return {"train": {**RECIPE["train"], "first_phase": times}}


def test_the_first_phase_keeps_its_shape_over_its_own_epochs():
    optim = Optimisation(epochs=160, first_phase=1.25, schedule="multistep", milestones=(80, 120))
    first = optim.in_first_phase()
    assert (first.epochs, first.milestones, first.first_phase) == (200, (100, 150), 1)
    assert (optim.epochs, optim.milestones) == (160, (80, 120))


def test_the_first_phase_may_have_a_rate_of_its_own():
    optim = Optimisation(epochs=8, lr=1e-4, first_phase_lr=0.4, first_phase=0.5)
    first = optim.in_first_phase()
    assert (first.lr, first.epochs, optim.lr) == (pytest.approx(4e-5), 4, 1e-4)
    assert first.in_first_phase() == first


@pytest.mark.parametrize("epochs", [0, 7])
def test_an_ordinary_first_phase_and_one_without_training_keep_their_epochs(epochs: int):
    assert Optimisation(epochs=epochs).in_first_phase().epochs == epochs
    assert Optimisation(epochs=0, first_phase=5).in_first_phase().epochs == 0


def test_a_reduced_recipe_shortens_the_first_phase_too():
    assert Optimisation(epochs=12, first_phase=2).divided(4).in_first_phase().epochs == 6


def test_settings_with_an_ordinary_first_phase_are_written_as_they_always_were():
    """Runs from before it existed keep their identity."""
    assert not {"first_phase", "first_phase_lr"} & Optimisation().model_dump(mode="json").keys()
    assert Optimisation(first_phase=3).model_dump(mode="json")["first_phase"] == 3


def test_only_the_learners_stage_of_the_first_phase_is_longer(tmp_path: Path):
    """EEIL's second stage and the plug-in's keep their own epochs."""
    runner = tiny_runner(
        "eeil+two_stage",
        tmp_path,
        recipe=longer(2.5),
        settings={"eeil.tuning_epochs": 1, "two_stage.epochs": 1},
    )
    later = [(phase, *rest) for phase in (1, 2) for rest in (("train", 2), ("balanced", 1), ("two_stage", 1))]
    assert epochs_by_stage(runner) == [(0, "train", 5), (0, "two_stage", 1), *later]


def test_a_phase_that_is_the_only_one_is_no_first_phase(tmp_path: Path):
    scenario = tiny_scenario()
    alone = type(scenario)(**{**vars(scenario), "phases": scenario.phases[:1]})
    assert epochs_by_stage(tiny_runner("replay", tmp_path, recipe=longer(2.5), scenario=alone)) == [
        (0, "train", 2)
    ]


def test_planned_steps_count_the_longer_first_phase():
    train = Optimisation(epochs=2, first_phase=2.5, batch=8)
    plain = phase_steps(tiny_scenario(), Optimisation(epochs=2, batch=8), MemorySettings())
    assert phase_steps(tiny_scenario(), train, MemorySettings()) == [plain[0] // 2 * 5, *plain[1:]]
