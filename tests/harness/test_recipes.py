"""Recipes: found by name, path or content, laid over each other section by section, refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.recipes import load_recipe, merged, recipe_names
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import resolve_plans
from imbcil.harness.scenario_request import resolve_recipe


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_can_be_read_and_says_what_it_is(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert load_recipe(recipe.model_dump(mode="json")) == recipe


def test_the_papers_recipe_holds_the_published_numbers():
    paper = load_recipe("paper")
    train = paper.train
    assert (train.epochs, train.batch, train.lr, train.weight_decay) == (160, 128, 0.1, 5e-4)
    assert (train.schedule, train.milestones, train.factor) == ("multistep", (80, 120), 0.1)
    assert (paper.data.holdout, paper.data.holdout_quirk) == (0.1, True)
    assert (paper.memory.budget, paper.memory.old, paper.preset) == ("20/class", "reselect", "released")
    assert (paper.backbone.name, paper.augment.crop, paper.augment.pad) == ("resnet32_conv", "resized", 4)
    assert not paper.reduced


def test_recipes_based_on_the_paper_differ_only_where_they_say():
    paper, quarter, strong = (load_recipe(name) for name in ("paper", "paper-quarter", "paper-aa"))
    own = {"name", "summary"}
    assert quarter.epochs_divisor == 4
    assert quarter.reduced
    assert quarter.model_dump(exclude={*own, "epochs_divisor", "reduced"}) == paper.model_dump(
        exclude={*own, "epochs_divisor", "reduced"}
    )
    assert (strong.augment.autoaugment, strong.augment.cutout, strong.augment.crop) == (
        "cifar10",
        16,
        "resized",
    )
    assert strong.train == paper.train
    assert not strong.reduced


def test_the_papers_recipe_for_224_pixels_holds_its_published_numbers():
    paper, large = load_recipe("paper"), load_recipe("paper-224")
    assert large.backbone.name == "resnet18"
    train = large.train
    assert (train.epochs, train.milestones, train.factor, train.lr) == (90, (30, 60), 0.1, 0.1)
    assert (train.batch, train.momentum, train.weight_decay) == (128, 0.9, 1e-4)
    assert (large.augment.crop, large.augment.pad, large.augment.flip) == ("resized", 0, True)
    assert (large.data, large.memory, large.preset) == (paper.data, paper.memory, "released")


@pytest.mark.parametrize(
    ("learner", "first", "epochs", "milestones", "decay"),
    [
        ("finetune", 200, 80, (40, 70), 2e-4), ("replay", 200, 70, (30, 50), 2e-4), ("icarl", 200, 170, (80, 120), 2e-4),
        ("lwf", 200, 250, (60, 120, 180, 220), 2e-4), ("ewc", 200, 180, (70, 120, 150), 2e-4),
        ("bic", 170, 170, (60, 100, 140), 2e-4), ("wa", 200, 170, (60, 100, 140), 2e-4),
        ("der", 200, 170, (80, 120, 150), 2e-4), ("memo", 200, 170, (80, 120, 150), 2e-4),
        ("lucir", 160, 160, (80, 120), 5e-4), ("podnet", 160, 160, (), 5e-4), ("foster", 200, 170, (), 5e-4),
        ("mafdrc", 200, 200, (), 5e-4), ("gradient_reweighting", 200, 170, (80, 120), 2e-4),
    ],
)  # fmt: skip
def test_every_row_of_the_balanced_ladder_has_the_epochs_of_its_code(
    learner: str, first: int, epochs: int, milestones: tuple[int, ...], decay: float
):
    asked = RunRequest(method=(learner,), recipe="pycil", dataset="cifar100")
    train = resolve_plans(asked, resolve_recipe(asked)[0])[0].learner.cfg.train
    assert (train.in_first_phase().epochs, train.epochs, train.milestones) == (first, epochs, milestones)
    assert (train.weight_decay, train.schedule) == (decay, "multistep" if milestones else "cosine")
    assert train.lr_scale(train.epochs - 1) < 0.11


def test_the_smoke_recipe_is_the_papers_at_ten_epochs_a_phase():
    paper, smoke = load_recipe("paper"), load_recipe("paper-smoke")
    assert smoke.train == paper.train
    shown = smoke.train.divided(smoke.epochs_divisor)
    assert (shown.epochs, shown.milestones) == (10, (5, 8))
    assert smoke.reduced


@pytest.mark.parametrize("name", recipe_names())
def test_only_recipes_with_a_full_schedule_stand_beside_published_tables(name: str):
    recipe = load_recipe(name)
    assert recipe.published or recipe.reduced
    assert recipe.preset == ("released" if name.startswith("paper") else "sound")
    assert recipe.memory.old == ("reselect" if name.startswith("paper") else "truncate")


def test_a_file_is_named_after_itself_and_lays_its_keys_over_its_base(tmp_path: Path):
    path = written(
        tmp_path / "mine.yaml", "based_on: paper\ntrain: {lr: 0.2}\nlearners: {icarl: {patience: 7}}\n"
    )
    mine = load_recipe(path)
    assert (mine.name, mine.train.lr, mine.train.epochs) == ("mine", 0.2, 160)
    assert mine.learners == {"icarl": {"patience": 7}}


def test_a_base_may_have_a_base(tmp_path: Path):
    first = written(tmp_path / "first.yaml", "based_on: paper\ntrain: {lr: 0.2}\n")
    second = load_recipe(written(tmp_path / "second.yaml", f"based_on: {first}\ntrain: {{epochs: 3}}\n"))
    assert (second.train.lr, second.train.epochs, second.train.batch) == (0.2, 3, 128)


def test_a_recipe_may_be_given_as_a_mapping_with_a_base():
    assert load_recipe({"name": "x", "based_on": "paper", "data": {"holdout": 0.2}}).data.holdout_quirk


def test_loading_does_not_change_what_was_given():
    given = {"name": "x", "based_on": "paper"}
    load_recipe(given)
    assert given == {"name": "x", "based_on": "paper"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: {epoch: 3}", "unknown key 'train.epoch'; did you mean epochs"),
        ("trian: {}", "unknown key 'trian'; did you mean train"),
        ("train: {epochs: many}", "train.epochs = 'many'"),
        ("train: {lr: .nan}", "train.lr"),
        ("memory: {budget: 20/klass}", "memory.budget = '20/klass': write N/class, a total N, or 0"),
        ("memory: {old: forget}", "memory.old = 'forget'"),
        ("epochs_divisor: 0", "epochs_divisor = 0"),
        ("train: 3", "train = 3"),
        ("train: {milestones: [3]}", "milestones need schedule: multistep, not constant"),
        ("based_on: papr", "There is no recipe called 'papr'; did you mean paper"),
        ("based_on: 3", "based_on must name a recipe"),
        ("based_on: [paper]", "based_on must name a recipe"),
        ("train: [", "line"),
        ("- 1", "must hold `key: value` lines"),
    ],
)
def test_a_broken_recipe_is_refused_with_its_place(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(BadInput) as refusal:
        load_recipe(written(tmp_path / "broken.yaml", text))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_circle_of_recipes_is_refused(tmp_path: Path):
    path = tmp_path / "round.yaml"
    with pytest.raises(BadInput, match="not in a circle"):
        load_recipe(written(path, f"based_on: {path}\n"))


@pytest.mark.parametrize("name", ["papr", "", "../recipes/paper"])
def test_a_recipe_that_is_not_there_is_answered(name: str):
    with pytest.raises((UnknownName, BadInput), match=r"papr|''|Cannot read"):
        load_recipe(name)


def test_mappings_are_laid_over_each_other_and_neither_changes():
    below: dict[str, Any] = {"a": {"b": 1, "c": [1]}, "d": {"e": 1}, "f": 1}
    above: dict[str, Any] = {"a": {"b": 2}, "d": 5, "f": {"g": 1}}
    assert merged(below, above) == {"a": {"b": 2, "c": [1]}, "d": 5, "f": {"g": 1}}
    assert below == {"a": {"b": 1, "c": [1]}, "d": {"e": 1}, "f": 1}
    assert above == {"a": {"b": 2}, "d": 5, "f": {"g": 1}}


def test_recipes_of_long_tailed_recognition_hold_their_published_numbers():
    bot = load_recipe("bot")
    train = bot.train
    assert (train.lr, train.momentum, train.weight_decay, train.batch, train.epochs) == (
        0.1,
        0.9,
        2e-4,
        128,
        200,
    )
    assert (train.warmup, train.milestones, train.factor) == (5, (160, 180), 0.01)
    assert (bot.backbone.name, bot.augment.crop, bot.augment.pad, bot.augment.flip) == (
        "resnet32_pad",
        "pad",
        4,
        True,
    )
    assert (bot.augment.autoaugment, bot.augment.cutout, bot.memory.budget) == ("none", 0, "0")
    more = load_recipe("more-weak")
    train = more.train
    assert (train.lr, train.momentum, train.weight_decay, train.batch, train.epochs) == (
        0.1,
        0.9,
        2e-4,
        256,
        200,
    )
    assert (train.schedule, train.warmup, more.backbone.name) == ("cosine", 0, "resnet32_pad")
    assert more.augment == bot.augment


@pytest.mark.parametrize(("weak", "strong"), [("bot", "strong"), ("more-weak", "more-strong")])
def test_the_strong_family_differs_from_the_weak_one_in_its_augmentation_alone(weak: str, strong: str):
    one, other = load_recipe(weak), load_recipe(strong)
    assert other.augment == one.augment.model_copy(update={"autoaugment": "cifar10", "cutout": 16})
    own = {"name", "summary", "published", "augment"}
    assert other.model_dump(exclude=own) == one.model_dump(exclude=own)
    assert other.published != one.published


@pytest.mark.parametrize("name", ["bot", "strong", "more-weak", "more-strong"])
def test_a_quarter_of_a_recipe_is_marked_as_reduced(name: str):
    quarter = load_recipe(f"{name}-quarter")
    assert (quarter.epochs_divisor, quarter.reduced, quarter.train) == (4, True, load_recipe(name).train)
