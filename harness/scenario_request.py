"""What a request asks of recipe and scenario. Needs no torch: `show protocol` answers at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.recipes import Recipe, load_recipe, merged
from imbcil.harness.request import RunRequest
from imbcil.protocols.catalogue import default_recipe
from imbcil.protocols.scenario import labels_of
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import protocol_rule

SECTIONS = ("data", "augment", "backbone", "memory", "train", "labels")


def resolve_recipe(request: RunRequest) -> tuple[Recipe, list[str]]:
    """The recipe with --memory and the --set paths of its sections applied, and sentences for the log."""
    said = []
    chosen: str | Mapping[str, Any] | None = request.recipe
    if chosen is None:
        dataset = request.dataset or protocol_rule(request.protocol).dataset
        labels = labels_of(request.protocol, dataset, resolved_root(request.data_root))
        chosen, why = default_recipe(dataset, request.protocol, request.imbalance, labels)
        said = [why] if why else []
    content = load_recipe(chosen).model_dump(mode="json")
    for path, value in request.set.items():
        section, _, key = path.partition(".")
        if section in SECTIONS:
            content = merged(content, {section: nested(key, value, path)})
    recipe = validated(Recipe, content, "--set")
    if request.memory is not None:
        content = merged(recipe.model_dump(mode="json"), {"memory": {"budget": str(request.memory)}})
        recipe = validated(Recipe, content, "--memory")
    return recipe, said


def protocol_settings(request: RunRequest, recipe: Recipe, seed: int) -> ProtocolSettings:
    """What decides the scenario of one seed."""
    axes = ("model", "order", "sample") if request.vary == "all" else (request.vary,)
    rule = protocol_rule(request.protocol)
    given = {
        "protocol": request.protocol,
        "dataset": request.dataset or rule.dataset,
        "n_tasks": request.n_tasks,
        "base": request.base,
        "step": request.step,
        "sizes": request.sizes,
        "order": request.order or rule.order,
        "imbalance": request.imbalance,
        "rho": request.rho,
        "data": recipe.data,
        "vary": axes,
        "seed": seed if request.vary != "model" else 0,
    }
    return validated(ProtocolSettings, given, "run")


def nested(key: str, value: Any, path: str) -> dict[str, Any]:
    """`a.b` and a value as {"a": {"b": value}}."""
    first, dot, rest = key.partition(".")
    if not first or (dot and not rest):
        raise BadInput(f"--set {path}: write SECTION.key=value, such as train.epochs=5.")
    return {first: nested(rest, value, path)} if dot else {first: value}


def resolved_root(given: str | None) -> Path | None:
    """The folder of `--data-root`, whatever the current one will be; None for the default."""
    return Path(given).expanduser().absolute() if given else None
