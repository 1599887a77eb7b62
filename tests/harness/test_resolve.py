"""From a request to resolved plans: which layer wins, what is refused, in which words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from resolved import plans, refused, settings

from imbcil.harness.recipes import load_recipe

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


# --- layers of settings -------------------------------------------------------------------------------------------


def test_class_defaults_come_first_and_the_recipes_training_over_them():
    cfg = settings()
    assert (cfg.old_loss, cfg.distillation) == ("ce+kd", 1.0)
    quick = load_recipe("quick").train
    assert (
        cfg.train == quick.model_copy(update={"clip_norm": 10}) != type(cfg)().train
    )  # its line in `learners`


def test_the_preset_comes_from_flag_or_recipe():
    assert settings(recipe="paper").old_loss == "ce+sum-bce"
    assert settings(recipe="paper", preset="sound").old_loss == "ce+kd"
    assert settings(recipe="quick", preset="released").schedule == "plateau"
    assert plans(recipe="paper")[0].preset == "released"


PRESET = """
from imbcil.harness.contract import Learner

class Preset(Learner):
    presets = {"released": {"train": {"epochs": 5}}}
"""


def test_a_presets_training_wins_over_the_recipes(tmp_path: Path):
    (tmp_path / "preset.py").write_text(PRESET)
    cfg = settings(method=f"{tmp_path}/preset.py", recipe="paper")
    assert (cfg.train.epochs, cfg.train.lr) == (5, 0.1)
    assert settings(method=f"{tmp_path}/preset.py", recipe="paper", preset="sound").train.epochs == 160


def test_the_recipes_learners_win_over_the_preset_and_set_over_all():
    mine = {
        "name": "mine",
        "based_on": "paper",
        "learners": {"icarl": {"old_loss": "bce", "train": {"epochs": 7}}},
    }
    assert settings(recipe=mine).old_loss == "bce"
    assert (settings(recipe=mine).train.epochs, settings(recipe=mine).train.lr) == (7, 0.1)
    asked = {"icarl.old_loss": "ce+kd", "icarl.train.epochs": 9, "train.lr": 0.3}
    cfg = settings(recipe=mine, set=asked)
    assert (cfg.old_loss, cfg.train.epochs, cfg.train.lr) == ("ce+kd", 9, 0.3)


def test_training_set_for_one_learner_leaves_the_others_alone():
    first, second = plans(method=("icarl", "replay"), set={"icarl.train.epochs": 3})
    whole = load_recipe("quick").train.epochs
    assert (first.learner.cfg.train.epochs, second.learner.cfg.train.epochs) == (3, whole)
    assert first.recipe.train.epochs == whole != 3


def test_plug_ins_have_settings_of_their_own_in_the_order_written():
    (plan,) = plans(
        method="replay+class_balanced_sampling+balanced_softmax", set={"class_balanced_sampling.q": 0.5}
    )
    assert [part.name for part in plan.plugins] == ["class_balanced_sampling", "balanced_softmax"]
    assert plan.plugins[0].cfg.q == 0.5
    assert plan.method == "replay+class_balanced_sampling+balanced_softmax"


def test_one_plan_a_method_in_the_order_asked_for():
    assert [plan.learner.name for plan in plans(method=("replay", "finetune", "icarl"))] == [
        "replay",
        "finetune",
        "icarl",
    ]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("trian.epochs", "--set trian.epochs: unknown path; did you mean train"),
        ("icral.patience", "--set icral.patience: unknown path; did you mean icarl"),
        ("train.epoch", "unknown key 'train.epoch'; did you mean epochs"),
        ("icarl.patients", "icarl: unknown key 'patients'; did you mean patience"),
        ("icarl.train.epoch", "icarl: unknown key 'train.epoch'; did you mean epochs"),
        ("replay.train.lr", "--set replay.train.lr: replay is in no --method of this run"),
        ("epochs", "--set epochs: unknown path"),
        ("train", "--set train: write SECTION.key=value"),
        ("epochs_divisor.x", "--set epochs_divisor.x: unknown path"),
        ("train.", "--set train.: write SECTION.key=value"),
        ("train..lr", "--set train..lr: write SECTION.key=value"),
        ("icarl.train.", "--set icarl.train.: write SECTION.key=value"),
        ("data.holdout.x", "data.holdout"),
        ("icarl.patience.x", "icarl: patience"),
    ],
)
def test_an_unknown_path_is_refused_with_the_nearest_known_one(path: str, words: str):
    assert words in refused(set={path: 1})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"train.epochs": -1}, "train.epochs = -1"),
        ({"train.epochs": 2.5}, "train.epochs = 2.5"),
        ({"train.lr": float("nan")}, "train.lr = nan"),
        ({"train.lr": None}, "train.lr = None"),
        ({"data.holdout": 1.0}, "data.holdout = 1.0"),
        ({"icarl.temperature": 0}, "icarl: temperature = 0"),
        ({"icarl.old_loss": "mse"}, "icarl: old_loss = 'mse'"),
        ({"train": 3}, "--set train: write SECTION.key=value"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_its_path(asked: dict[str, Any], words: str):
    assert words in refused(set=asked)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("icarrl", "There is no learner called 'icarrl'; did you mean icarl"),
        ("icarl+balanced", "There is no plug-in called 'balanced'"),
        ("balanced_softmax", "balanced_softmax is a plug-in, not a learner"),
        ("replay+icarl", "icarl is a learner, not a plug-in"),
        ("replay+balanced_softmax+balanced_softmax", "stands there twice"),
        ("gradient_reweighting+balanced_softmax", "they cannot be combined"),
        ("replay+", "lacks a name"),
    ],
)
def test_methods_that_cannot_be_are_refused(method: str, words: str):
    assert words in refused(method=method)


@pytest.mark.parametrize("plugin", ["balanced_softmax", "mixup"])
def test_a_setting_that_brings_a_criterion_of_its_own_is_refused_beside_a_plug_in_that_needs_the_usual_one(
    plugin: str,
):
    words = refused(method=f"icarl+{plugin}", set={"icarl.old_loss": "bce"})
    assert "(the paper's sigmoids on all units, old_loss = bce)" in words and plugin in words
    assert plans(method=f"icarl+{plugin}", set={"icarl.old_loss": "ce+sum-bce"})


def test_one_wrong_method_refuses_all():
    assert "icarrl" in refused(method=("replay", "icarrl"))
