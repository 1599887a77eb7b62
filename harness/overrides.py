"""What a run changed against the recipe and the preset that it names; numbers compare only where nothing was."""

from collections.abc import Iterator, Mapping
from typing import Any

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.recipes import Recipe, load_recipe, merged, recipe_names
from imbcil.harness.resolve import Part, Plan, has_train
from imbcil.harness.settings import Optimisation

SECTIONS = {"data", "augment", "backbone", "memory", "train", "labels", "epochs_divisor"}
SHOWN_ALONE = {"memory.budget"}  # a condition of its own in every table


def overrides(plan: Plan) -> dict[str, object]:
    """Changed settings as `train.epochs` or `<learner>.<key>` -> value; empty: recipe and preset to the letter.

    Found by comparison, not from the flags: a stored config writes everything out, and a user's own file may
    bear the name of a recipe that comes with the program.
    """
    shipped = load_recipe(plan.recipe.name) if plan.recipe.name in recipe_names() else plan.recipe
    changed = dict(_changes(_sections(plan.recipe), _sections(shipped)))
    for path in SHOWN_ALONE:
        changed.pop(path, None)
    for part in (plan.learner, *plan.plugins):
        expected = _preset_settings(part, plan, shipped)
        changed |= _changes({part.name: _dump(part.cfg)}, {part.name: _dump(expected)})
    return {path: _written(path, value) for path, value in changed.items()}


def _written(path: str, value: object) -> object:
    """Idle settings of the training are not written out: what is missing is as it is by default."""
    *_, section, key = ("", *path.split("."))
    field = Optimisation.model_fields.get(key) if section == "train" else None
    return field.default if value is None and field is not None else value


def _sections(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=SECTIONS)


def _preset_settings(part: Part, plan: Plan, shipped: Recipe) -> Frozen:
    """A part's settings as recipe and preset alone would have them."""
    owns = part is plan.learner and has_train(part.kind)
    below = {"train": plan.recipe.train.model_dump()} if owns else {}
    content = merged(below, part.kind.presets.get(plan.preset, {}))
    content = merged(content, shipped.learners.get(part.name, {}))
    expected: Frozen = validated(part.kind.Config, content, part.name)
    return expected


def _dump(settings: Frozen) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=set(settings.places))


def _changes(
    now: Mapping[str, Any], before: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, object]]:
    """Leaves that differ, by dotted path."""
    for key in sorted({*now, *before}):
        mine, theirs = now.get(key), before.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from _changes(mine, theirs, f"{path}{key}.")
        elif mine != theirs:
            yield f"{path}{key}", mine
