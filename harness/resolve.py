"""From what a person asks for to fully resolved runs: learner, plug-ins, every setting, and nothing left open."""

from dataclasses import dataclass
from typing import Any

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, did_you_mean
from imbcil.harness.base.registry import (
    learner_names,
    learner_version,
    load_learner,
    load_plugin,
    parse_method,
    plugin_names,
    plugin_version,
    short_name,
)
from imbcil.harness.composition import check_composition
from imbcil.harness.contract import Learner, Plugin
from imbcil.harness.recipes import Recipe, merged
from imbcil.harness.request import RunRequest
from imbcil.harness.scenario_request import SECTIONS, nested, resolved_root
from imbcil.harness.settings import MemoryPolicy, Policy
from imbcil.protocols.scenario import labels_of
from imbcil.protocols.splits import protocol_rule


@dataclass(frozen=True)
class Part:
    """A learner or plug-in of a run: its name in settings, class, resolved settings and version."""

    name: str
    kind: type[Any]
    cfg: Frozen
    version: str


@dataclass(frozen=True)
class Plan:
    """One method of a request, resolved but for the scenario's digest; `seeds` share everything else."""

    method: str
    learner: Part
    plugins: tuple[Part, ...]
    recipe: Recipe
    preset: str


def resolve_plans(request: RunRequest, recipe: Recipe) -> list[Plan]:
    """Every method of the request; conflicts and unknown settings are refused before any data is opened."""
    preset = request.preset or recipe.preset
    dataset = request.dataset or protocol_rule(request.protocol).dataset
    label_kind = labels_of(request.protocol, dataset, resolved_root(request.data_root))
    methods = [parse_method(text) for text in request.method]
    known = {short_name(name) for method in methods for name in (method.learner, *method.plugins)}
    for path in request.set:
        head, dot, _ = path.partition(".")
        if dot and head in {*learner_names(), *plugin_names()} - known:
            raise BadInput(
                f"--set {path}: {head} is in no --method of this run; add it there or leave the setting out."
            )
        if head not in (*SECTIONS, *known) or not dot:
            raise BadInput(
                f"--set {path}: unknown path; {did_you_mean(head, [*SECTIONS, *sorted(known)])} (NAME.key)."
            )
    plans = []
    for text, method in zip(request.method, methods, strict=True):
        learner_kind: type[Learner] = load_learner(method.learner)
        plugin_kinds: list[type[Plugin]] = [load_plugin(name) for name in method.plugins]
        named = [(short_name(name), kind) for name, kind in zip(method.plugins, plugin_kinds, strict=True)]
        if label_kind == "multi":
            check_labels(short_name(method.learner), learner_kind, recipe)
        layers: dict[str, Any] = {"train": recipe.train.model_dump()} if has_train(learner_kind) else {}
        layers = merged(layers, learner_kind.presets.get(preset, {}))
        name = short_name(method.learner)
        cfg = _settings(name, learner_kind, layers, recipe, request)
        learner = Part(name, learner_kind, cfg, learner_version(method.learner, cfg))
        settings = [
            _settings(name, kind, dict(kind.presets.get(preset, {})), recipe, request) for name, kind in named
        ]
        plugins = tuple(
            Part(name, kind, own, plugin_version(given, own))
            for given, (name, kind), own in zip(method.plugins, named, settings, strict=True)
        )
        given = {part.name: part.cfg for part in (learner, *plugins)}
        check_composition(learner_kind, learner.name, named, recipe.memory, label_kind, given)
        plans.append(Plan(text, learner, plugins, recipe, preset))
    return plans


def label_policies(kind: type[Learner], recipe: Recipe) -> tuple[Policy, MemoryPolicy]:
    """What new images and exemplars show of their labels: the recipe's choice, else the learner's own."""
    return recipe.labels.policy or kind.needs.policy, recipe.labels.memory or kind.needs.memory_labels


def check_labels(name: str, kind: type[Learner], recipe: Recipe) -> None:
    """Refuse a label policy that the learner cannot serve. Raises BadInput."""
    policy, _ = label_policies(kind, recipe)
    if policy == "pseudo_old" and not kind.needs.teacher and kind.pseudo_targets is Learner.pseudo_targets:
        raise BadInput(
            f"labels.policy = pseudo_old needs labels from a model of the past, and {name} keeps none; "
            "use mask_current or assume_negative."
        )


def has_train(kind: type[Learner]) -> bool:
    return "train" in kind.Config.model_fields


def _settings(
    name: str, kind: type[Any], below: dict[str, Any], recipe: Recipe, request: RunRequest
) -> Frozen:
    """Class defaults, then preset, then the recipe's `learners` section, then --set."""
    content = merged(below, recipe.learners.get(name, {}))
    for path, value in request.set.items():
        head, _, key = path.partition(".")
        if head == name:
            content = merged(content, nested(key, value, path))
    settings: Frozen = validated(kind.Config, content, name)
    return settings
