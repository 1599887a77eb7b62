"""A run's identity: `run_key`, a sha256 over all that its numbers follow from, and its stored config."""

import hashlib
import json
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from imbcil.harness.base.registry import located_method
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Part, Plan
from imbcil.harness.scenario_request import protocol_settings
from imbcil.protocols.catalogue import LONG_TAIL, split_name
from imbcil.protocols.imbalance import DEFAULT_RHO
from imbcil.protocols.orders import names_file
from imbcil.protocols.scenario import Scenario
from imbcil.protocols.splits import protocol_rule

NOT_IDENTITY = {"name", "summary", "published", "preset", "reduced", "learners"}  # of a recipe
KEY_DIGITS = 16


def run_key(plan: Plan, request: RunRequest, scenario: Scenario, seed: int, resolved: dict[str, Any]) -> str:
    """16 hex digits. `resolved`: precision, compiled, device type, and the hash of weights where there are any."""
    apart = NOT_IDENTITY if scenario.label_kind == "multi" else NOT_IDENTITY | {"labels"}
    recipe = plan.recipe.model_dump(mode="json", exclude=apart)
    protocol = _one_spelling(protocol_settings(request, plan.recipe, seed).model_dump(mode="json"))
    content = {
        "protocol": protocol,
        "digest": scenario.digest,
        "recipe": recipe,
        "preset": plan.preset,
        "parts": [
            [part.name, part.version, part.cfg.model_dump(mode="json", exclude=set(part.cfg.places))]
            for part in (plan.learner, *plan.plugins)
        ],
        "seed": seed,
        "vary": request.vary,
        **resolved,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _one_spelling(protocol: dict[str, Any]) -> dict[str, Any]:
    """The same scenario written in different ways as one: a default that is written out, `X` with `exp` for `X-lt`,
    an order file by its being one (what it says is in the digest)."""
    rule, name = protocol_rule(protocol["protocol"]), protocol["dataset"]
    written = dict(protocol)
    if all(protocol[key] is None for key in ("n_tasks", "base", "step", "sizes")) and not rule.one_phase:
        written["n_tasks"] = rule.n_tasks
    tailed = name + LONG_TAIL if split_name(name + LONG_TAIL)[1] and not split_name(name)[1] else name
    if protocol["imbalance"] == "exp" and split_name(tailed)[1]:
        written |= {"dataset": tailed, "imbalance": None}
    if protocol["rho"] == DEFAULT_RHO:
        written["rho"] = None
    if names_file(protocol["order"]):
        written["order"] = "file"
    elif protocol["order"].startswith("random:"):
        written["order"] = f"random:{int(protocol['order'].removeprefix('random:'))}"
    return written


def stored_config(plan: Plan, request: RunRequest, seed: int, resolved: dict[str, Any]) -> str:
    """The run as a `--config` file with everything written out: running it repeats the run, from any folder."""
    recipe = plan.recipe.model_dump(mode="json", exclude={"learners"})
    settings: dict[str, Any] = {}
    for part in (plan.learner, *plan.plugins):
        settings |= settings_of(part)
    protocol = protocol_settings(request, plan.recipe, seed).model_dump(
        mode="json", include={"dataset", "n_tasks", "base", "step", "sizes", "order", "imbalance", "rho"}
    )
    if names_file(protocol["order"]):
        protocol["order"] = str(Path(protocol["order"]).absolute())
    content = {
        "protocol": request.protocol,
        **protocol,
        "method": [located_method(plan.method)],
        "seeds": [seed],
        "vary": request.vary,
        "recipe": recipe,
        "preset": plan.preset,
        "set": settings,
        "weights": _stored_source(request.weights),
        "allow_leaky_weights": request.allow_leaky_weights or None,
        "precision": resolved["precision"],
        "compile": "on" if resolved["compiled"] else "off",
        "device": resolved["device"],
    }
    kept = {name: value for name, value in content.items() if value is not None}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _stored_source(weights: str | None) -> str | None:
    """A file by its absolute path, so that a stored config finds it from anywhere; downloads as they are."""
    path = Path(weights).expanduser() if weights else None
    return str(path.absolute()) if path is not None and path.is_file() else weights


def settings_of(part: Part) -> dict[str, Any]:
    """A part's settings as `<name>.<key>: value`."""
    return {f"{part.name}.{key}": value for key, value in part.cfg.model_dump(mode="json").items()}


def command_line(plan: Plan, request: RunRequest, seed: int) -> str:
    """What a person types to get this run, without its store and paths."""
    flags: list[tuple[str, Any]] = [("protocol", request.protocol)]
    flags += [(name.replace("_", "-"), getattr(request, name)) for name in ("n_tasks", "base", "step")]
    flags += [("sizes", ",".join(map(str, request.sizes)) if request.sizes else None)]
    flags += [(name, getattr(request, name)) for name in ("dataset", "order", "imbalance", "rho", "memory")]
    flags += [("method", plan.method), ("seed", seed or None)]
    flags += [("vary", request.vary if request.vary != "model" else None), ("preset", request.preset)]
    flags += [("weights", Path(request.weights).name if request.weights else None)]
    flags += [("recipe", plan.recipe.name if request.recipe else None)]
    machine = [(name, getattr(request, name)) for name in ("precision", "compile", "device")]
    flags += [(name, value) for name, value in machine if value != "auto"]
    flags += [("set", f"{path}={_shown(value)}") for path, value in request.set.items()]
    leaky = ["--allow-leaky-weights"] if request.allow_leaky_weights else []
    return " ".join(
        [
            "imbcil-bench run",
            *(f"--{name} {quote(str(value))}" for name, value in flags if value is not None),
            *leaky,
        ]
    )


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)
