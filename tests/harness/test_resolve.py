"""From a request to resolved plans: which layer wins, what is refused, in which words."""

from pathlib import Path
from typing import Any

import pytest
import torch

from imbcil.harness import hardware
from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.registry import learner_names, load_learner
from imbcil.harness.hardware import precision_notes, resolve_device, resolve_precision
from imbcil.harness.recipes import load_recipe
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan, resolve_plans
from imbcil.harness.scenario_request import nested, protocol_settings, resolve_recipe

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


def plans(**request: Any) -> list[Plan]:
    asked = RunRequest.model_validate({"method": "icarl", "recipe": "quick", **request})
    return resolve_plans(asked, resolve_recipe(asked)[0])


def settings(**request: Any) -> Any:
    return plans(**request)[0].learner.cfg


def refused(**request: Any) -> str:
    with pytest.raises(BadInput) as refusal:
        plans(**request)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# --- recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "protocol", "recipe"),
    [("cifar100-lt", "lfs", "paper"), ("cifar100", "lfs", "pycil"), (None, "lfs", "quick"), ("glyphs100-lt", "lfh", "quick")],
)  # fmt: skip
def test_the_dataset_names_the_default_recipe(dataset: str | None, protocol: str, recipe: str):
    assert resolve_recipe(RunRequest(dataset=dataset, protocol=protocol))[0].name == recipe


def test_a_profile_that_is_asked_for_takes_the_long_tails_recipe():
    asked = RunRequest(dataset="cifar100", imbalance="exp")
    assert resolve_recipe(asked)[0].name == "paper"
    assert resolve_recipe(asked.model_copy(update={"imbalance": "none"}))[0].name == "pycil"


def test_own_data_use_quick_and_it_is_said():
    recipe, said = resolve_recipe(RunRequest(dataset="mydata"))
    assert recipe.name == "quick"
    assert len(said) == 1
    assert "mydata" in said[0]
    assert "quick" in said[0]


def test_an_explicit_recipe_needs_no_word():
    assert resolve_recipe(RunRequest(dataset="mydata", recipe="paper"))[1] == []


def test_set_reaches_every_section_of_the_recipe():
    recipe, _ = resolve_recipe(
        RunRequest(recipe="paper", set={
            "train.epochs": 3, "train.milestones": [1, 2], "data.holdout": 0.2, "augment.flip": False,
            "backbone.name": "tiny", "backbone.options.last_relu": False, "memory.old": "truncate",
        })
    )  # fmt: skip
    assert (recipe.train.epochs, recipe.train.milestones, recipe.train.lr) == (3, (1, 2), 0.1)
    assert (recipe.data.holdout, recipe.data.holdout_quirk) == (0.2, True)
    assert (recipe.augment.flip, recipe.augment.crop) == (False, "resized")
    assert (recipe.backbone.name, recipe.backbone.options) == ("tiny", {"last_relu": False})
    assert recipe.memory.old == "truncate"


def test_the_memory_flag_wins_over_recipe_and_set():
    recipe, _ = resolve_recipe(RunRequest(recipe="paper", memory="2000", set={"memory.budget": "5/class"}))
    assert (recipe.memory.budget, recipe.memory.old) == ("2000", "reselect")


def test_a_memory_that_cannot_be_read_names_the_flag():
    assert refused(memory="20/klass").startswith("--memory: memory.budget = ")
    assert "write N/class, a total N, or 0" in refused(memory="-5")
    assert refused(memory="20/klass", set={"train.epochs": 3}).startswith("--memory: memory.budget = ")


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


# --- the scenario's settings --------------------------------------------------------------------------------------


def test_a_seed_reaches_the_scenario_only_where_it_varies_it():
    for vary, axes, seed in (
        ("model", ("model",), 0),
        ("order", ("order",), 4),
        ("all", ("model", "order", "sample"), 4),
    ):
        request = RunRequest(vary=vary, recipe="paper")
        made = protocol_settings(request, resolve_recipe(request)[0], 4)
        assert (made.vary, made.seed) == (axes, seed)
    assert made.data.holdout_quirk


def test_what_is_not_asked_for_has_the_projects_defaults():
    request = RunRequest()
    made = protocol_settings(request, resolve_recipe(request)[0], 0)
    assert (made.dataset, made.order, made.protocol) == ("glyphs100-lt", "shuffled", "lfs")


def test_multi_label_runs_have_the_protocols_defaults():
    request = RunRequest(protocol="mlcil", split="B10-C2")
    recipe = resolve_recipe(request)[0]
    made = protocol_settings(request, recipe, 0)
    assert (made.dataset, made.order, made.base, made.step, recipe.name) == (
        "glyphs20-ml",
        "ordered",
        10,
        2,
        "quick-ml",
    )
    coco = RunRequest(protocol="mlcil", dataset="coco2014")
    recipe = resolve_recipe(coco)[0]
    assert (recipe.name, recipe.data.size, recipe.data.resize) == ("krt", 224, 224)


@pytest.mark.parametrize("recipe", ["quick-ml", "krt"])
def test_a_multi_label_recipe_gives_every_learner_the_same_epochs_and_rates(recipe: str):
    names = [name for name in learner_names() if "multi" in load_learner(name).needs.labels]
    made = plans(protocol="mlcil", recipe=recipe, method=names)
    assert len(made) == len(names) >= 15
    for plan in made:
        assert plan.learner.cfg.train == plan.recipe.train, plan.learner.name
    mine = {plan.learner.name: plan.learner.cfg for plan in made}
    podnet: Any = mine["podnet"]
    assert podnet.summed and podnet.finetune_share == 0  # a rate of 0.05 is one for SGD
    assert (podnet.spatial, podnet.flat) == (5, 180)  # beside KRT's sum
    lwf: Any = mine["lwf"]
    assert (lwf.temperature, lwf.distillation) == (1, 3)  # one port's pair, not a mixture of two


def test_a_path_and_its_value_become_nested_mappings():
    assert nested("a.b.c", 3, "x.a.b.c") == {"a": {"b": {"c": 3}}}
    assert nested("a", [1], "x.a") == {"a": [1]}


# --- device and precision -----------------------------------------------------------------------------------------


def with_gpus(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "kind"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_takes_the_fastest_device_that_is_here(
    cuda: int, mps: bool, kind: str, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(monkeypatch, cuda, mps)
    assert resolve_device("auto") == torch.device(kind)


def test_a_device_may_be_named_by_number(monkeypatch: pytest.MonkeyPatch):
    with_gpus(monkeypatch, cuda=2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "mps:1", "", "CUDA", "cuda:0:1"])
def test_a_device_that_cannot_be_read_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    with_gpus(monkeypatch, cuda=2, mps=True)
    with pytest.raises(BadInput, match=f"--device {name}: use auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize(("name", "cuda"), [("cuda:2", 2), ("cuda", 0), ("cuda:99", 1), ("mps", 0)])
def test_a_device_that_is_not_here_is_refused_with_how_many_are(
    name: str, cuda: int, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(monkeypatch, cuda)
    with pytest.raises(BadInput, match=f"--device {name} is not on this machine, which has {cuda} of kind"):
        resolve_device(name)


def test_precision_follows_the_hardware_unless_it_is_named(monkeypatch: pytest.MonkeyPatch):
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(hardware, "native_bf16", lambda device, native=native: native)
        assert resolve_precision("auto", CPU) == precision
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("tf32", CUDA) == "tf32"


@pytest.mark.parametrize(
    ("native", "precision", "said"), [(False, "bf16", 1), (True, "bf16", 0), (False, "fp32", 0)]
)
def test_an_emulated_precision_is_called_slow(
    native: bool, precision: str, said: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "native_bf16", lambda device: native)
    assert [note[:17] for note in precision_notes(precision, CPU)] == ["--precision bf16:"] * said


@pytest.mark.parametrize("device", [CPU, MPS])
def test_tf32_is_for_cuda_alone(device: torch.device):
    with pytest.raises(BadInput, match=f"--precision tf32 needs a CUDA device, not {device.type}"):
        resolve_precision("tf32", device)


def test_an_unknown_recipe_is_answered():
    with pytest.raises(UnknownName, match="There is no recipe called 'papr'; did you mean paper"):
        resolve_recipe(RunRequest(recipe="papr"))
