"""What counts as changed against recipe and preset: it decides whether a number may be compared."""

import pytest
import yaml

from imbcil.harness.overrides import overrides
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import resolve_plans
from imbcil.harness.scenario_request import resolve_recipe


def changed(**request):
    asked = RunRequest.model_validate({"method": "icarl", "recipe": "paper", **request})
    recipe, _ = resolve_recipe(asked)
    (plan,) = resolve_plans(asked, recipe)
    return overrides(plan)


@pytest.mark.parametrize("recipe", ["paper", "paper-quarter", "quick", "pycil"])
@pytest.mark.parametrize("preset", [None, "sound", "released"])
@pytest.mark.parametrize(
    "method", ["finetune", "icarl", "replay+balanced_softmax", "gradient_reweighting", "eeil+two_stage"]
)
def test_recipe_and_preset_to_the_letter_change_nothing(recipe, preset, method):
    assert changed(recipe=recipe, preset=preset, method=method) == {}


def test_the_memory_is_a_condition_of_its_own():
    assert changed(memory="2000") == {}


def test_a_changed_recipe_is_named_by_path_and_once():
    assert changed(set={"train.epochs": 5, "data.holdout_quirk": False}) == {
        "data.holdout_quirk": False,
        "train.epochs": 5,
    }


def test_what_is_switched_off_is_named_with_the_value_that_switches_it_off():
    assert changed(recipe="bot", method="finetune", set={"train.warmup": 0}) == {"train.warmup": 0}
    assert changed(recipe="quick", method="finetune", set={"train.first_phase": 1}) == {
        "train.first_phase": 1
    }
    assert changed(recipe="quick", set={"icarl.train.clip_norm": None}) == {"icarl.train.clip_norm": None}


def test_a_changed_learner_is_named_by_path():
    assert changed(method="gradient_reweighting", set={"gradient_reweighting.beta": False}) == {
        "gradient_reweighting.beta": False
    }


def test_writing_out_what_holds_anyway_changes_nothing():
    assert changed(set={"train.epochs": 160}) == {}


def test_a_users_file_with_the_name_of_a_recipe_does_not_pass_for_it(tmp_path):
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"based_on": "paper", "train": {"epochs": 3}}))
    assert changed(recipe=str(tmp_path / "paper.yaml")) == {"train.epochs": 3}


def test_a_recipe_written_out_in_full_is_still_that_recipe():
    recipe, _ = resolve_recipe(RunRequest(recipe="paper"))
    assert changed(recipe=recipe.model_dump(mode="json", exclude={"learners"})) == {}
