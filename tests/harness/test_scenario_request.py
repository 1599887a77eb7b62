"""What a request asks of recipe and scenario: defaults, flags over recipes, what a seed varies."""

from typing import Any

import pytest
from resolved import plans, refused

from imbcil.harness.base.errors import UnknownName
from imbcil.harness.base.registry import learner_names, load_learner
from imbcil.harness.request import RunRequest
from imbcil.harness.scenario_request import nested, protocol_settings, resolve_recipe


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


def test_an_unknown_recipe_is_answered():
    with pytest.raises(UnknownName, match="There is no recipe called 'papr'; did you mean paper"):
        resolve_recipe(RunRequest(recipe="papr"))


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
    assert (recipe.name, recipe.data.size, recipe.data.resize) == ("krt-coco", 224, 224)


def test_krt_and_l3a_have_the_constants_of_the_images_that_they_are_trained_on():
    found = {}
    for dataset in ("voc2007", "coco2014"):
        recipe = resolve_recipe(RunRequest(protocol="mlcil", dataset=dataset))[0].name
        krt, l3a = plans(protocol="mlcil", recipe=recipe, method=["krt", "l3a"])
        mine: Any = krt.learner.cfg
        other: Any = l3a.learner.cfg
        found[dataset] = (mine.embed, mine.retention, mine.rate, other.width, other.ridge)
    assert found["voc2007"] == (768, 80, 1.4 / 20, 8192, 1000)
    assert found["coco2014"] == (384, 100, 2.9 / 80, 4096, 1000)


@pytest.mark.parametrize("recipe", ["quick-ml", "krt", "krt-coco"])
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
