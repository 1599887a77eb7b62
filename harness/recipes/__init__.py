"""Recipes: the frozen training settings behind a paper's table, one YAML file each, found by file name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.yaml_files import read_yaml
from imbcil.harness.settings import (
    AugmentSettings,
    BackboneSettings,
    LabelSettings,
    MemorySettings,
    Optimisation,
)
from imbcil.protocols.settings import DataSettings

FOLDER = Path(__file__).parent


class Recipe(Frozen):
    """Everything that a table's rows share: data, augmentation, backbone, memory, optimisation."""

    name: str
    summary: str = ""
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    backbone: BackboneSettings = BackboneSettings()
    memory: MemorySettings = MemorySettings()
    train: Optimisation = Optimisation()
    labels: LabelSettings = LabelSettings()
    epochs_divisor: int = Field(
        default=1, ge=1
    )  # every epoch count and milestone, in every stage, rounded up
    reduced: bool = (
        False  # not a paper's full schedule: its numbers are no evidence against a published value
    )
    preset: Literal["released", "sound"] = "sound"
    published: str = ""  # the recipe whose published tables this one is comparable with
    learners: dict[str, dict[str, Any]] = {}  # settings of learners and plug-ins by name


def recipe_names() -> list[str]:
    """Every built-in recipe, sorted; reads file names only."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(recipe: str | Mapping[str, Any]) -> Recipe:
    """A built-in recipe by name, a YAML file by path, or the recipe itself as a mapping.

    A file may say `based_on: NAME`; its own keys win, section by section.
    """
    if isinstance(recipe, str):
        return validated(Recipe, _expanded(_content(recipe), recipe), f"recipe {recipe}")
    return validated(Recipe, _expanded(dict(recipe), "recipe"), "recipe")


def _content(name: str) -> dict[str, Any]:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name).expanduser()
        return {"name": path.stem, **read_yaml(path)}
    if name not in recipe_names():
        raise UnknownName("recipe", name, recipe_names())
    return {"name": name, **read_yaml(FOLDER / f"{name}.yaml")}


def _expanded(content: dict[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    base = content.pop("based_on", None)
    if base is None:
        return content
    if not isinstance(base, str) or depth > 5:
        raise BadInput(f"{where}: based_on must name a recipe, and not in a circle.")
    return merged(_expanded(_content(base), base, depth + 1), content)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over each other; `above` wins."""
    result = dict(below)
    for key, value in above.items():
        held = result.get(key)
        result[key] = (
            merged(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
        )
    return result
