"""From what a person asks for to fully resolved runs: recipe, settings, precision, and nothing left open."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
from imbcil.harness.labels import MemoryPolicy, Policy
from imbcil.harness.network.runtime import native_bf16
from imbcil.harness.recipes import Recipe, load_recipe, merged
from imbcil.harness.request import RunRequest
from imbcil.protocols.catalogue import default_recipe
from imbcil.protocols.scenario import labels_of
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import protocol_rule

SECTIONS = ("data", "augment", "backbone", "memory", "train", "labels")


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
        learner = Part(
            short_name(method.learner),
            learner_kind,
            _settings(short_name(method.learner), learner_kind, layers, recipe, request),
            learner_version(method.learner),
        )
        plugins = tuple(
            Part(
                name,
                kind,
                _settings(name, kind, dict(kind.presets.get(preset, {})), recipe, request),
                plugin_version(given),
            )
            for given, (name, kind) in zip(method.plugins, named, strict=True)
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


def nested(key: str, value: Any, path: str) -> dict[str, Any]:
    """`a.b` and a value as {"a": {"b": value}}."""
    first, dot, rest = key.partition(".")
    if not first or (dot and not rest):
        raise BadInput(f"--set {path}: write SECTION.key=value, such as train.epochs=5.")
    return {first: nested(rest, value, path)} if dot else {first: value}


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


def resolve_device(name: str) -> torch.device:
    """`auto`: the first GPU, else Apple's, else the CPU. Raises BadInput for one that is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise BadInput(f"--device {name}: use auto, cpu, cuda, cuda:NUMBER or mps.")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= count:
        raise BadInput(
            f"--device {name} is not on this machine, which has {count} of kind {kind}; use auto or cpu."
        )
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 where the hardware computes it, else fp32. tf32 is for CUDA alone."""
    if name == "tf32" and device.type != "cuda":
        raise BadInput(f"--precision tf32 needs a CUDA device, not {device.type}; use auto, fp32 or bf16.")
    if name == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return name


def resolved_root(given: str | None) -> Path | None:
    return Path(given).expanduser().absolute() if given else None
