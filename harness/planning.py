"""Planning: from a request to runs that are ready to start, each with its identity, description and folder."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from imbcil.harness.compilation import decide_compilation
from imbcil.harness.composition import check_counts, composition_notes
from imbcil.harness.hardware import hardware_name, precision_notes, resolve_device, resolve_precision
from imbcil.harness.identity import command_line, run_key, settings_of, stored_config
from imbcil.harness.overrides import overrides
from imbcil.harness.phases import phase_steps, train_counts
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan, label_policies, resolve_plans
from imbcil.harness.scenario_request import protocol_settings, resolve_recipe, resolved_root
from imbcil.harness.store.layout import Store, attempt_key, store_root
from imbcil.harness.store.run_folder import RunFolder, now_ms
from imbcil.harness.store.run_info import PhaseInfo, RunInfo
from imbcil.harness.tracking import resolve_tracking
from imbcil.harness.view import RunView
from imbcil.harness.weights import Weights
from imbcil.harness.weights_request import check_backbones, resolve_weights
from imbcil.protocols.describe import switches_text
from imbcil.protocols.scenario import Scenario, build_scenario
from imbcil.protocols.splits import protocol_rule


@dataclass(frozen=True)
class PlannedRun:
    """One run, ready to start: its folder may hold a part or all of it already."""

    plan: Plan
    info: RunInfo
    config: str
    scenario: Scenario
    folder: RunFolder
    device: torch.device
    weights: Weights | None = None


def plan_request(
    request: RunRequest, view: RunView, scenarios: dict[str, Scenario] | None = None
) -> tuple[Store, list[PlannedRun]]:
    """Resolve everything and refuse all bad input; nothing is trained or written.

    scenarios: those that were built already, by their settings; new ones are added.
    """
    recipe, said = resolve_recipe(request)
    plans = resolve_plans(request, recipe)
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device)
    said += precision_notes(precision, device)
    dataset = request.dataset or protocol_rule(request.protocol).dataset
    weights = resolve_weights(request, recipe.backbone, dataset)
    said += check_backbones(plans, weights)
    for plan in plans:
        said += composition_notes([(part.name, part.kind) for part in plan.plugins])
    store = Store(store_root(request.store))
    store.check_writable()  # before data are decoded, which may take long
    resolve_tracking(store, request.tracking_uri, disabled=request.no_tracking)
    planned = []
    scenarios = {} if scenarios is None else scenarios
    for plan in plans:
        for seed in request.seeds:
            settings = protocol_settings(request, recipe, seed)
            name = f"{request.data_root} {settings.model_dump_json()}"
            if name not in scenarios:
                scenarios[name] = build_scenario(settings, data_root=resolved_root(request.data_root))
            recipe.memory.check(len(scenarios[name].order))
            plan.learner.kind.check_classes(plan.learner.cfg, scenarios[name].class_names)
            check_counts(plan.plugins, train_counts(scenarios[name]).tolist(), scenarios[name].class_names)
            planned.append(plan_run(plan, request, scenarios[name], seed, device, precision, store, weights))
    for sentence in said:  # after everything that could refuse the request
        view.message(sentence)
    return store, planned


def plan_run(
    plan: Plan,
    request: RunRequest,
    scenario: Scenario,
    seed: int,
    device: torch.device,
    precision: str,
    store: Store,
    weights: Weights | None = None,
) -> PlannedRun:
    """One run with its identity, settings and folder."""
    compiled = decide_compilation(request.compile, device, precision, planned_images(plan, scenario))
    resolved = {"precision": precision, "compiled": compiled, "device": device.type}
    if weights is not None:
        resolved["weights"] = weights.sha256
    key = run_key(plan, request, scenario, seed, resolved)
    attempts = store.attempts(key)
    attempt = max(len(attempts), 1)
    if request.force and attempts and attempts[-1].state().status == "finished":
        attempt += 1
    folder = store.run(attempt_key(key, attempt))
    info = describe_run(plan, request, scenario, seed, folder.path.name, attempt, resolved)
    if weights is not None:
        info = info.model_copy(update=_weights_info(weights, info))
    config = stored_config(plan, request, seed, resolved)
    return PlannedRun(plan, info, config, scenario, folder, device, weights)


def _weights_info(weights: Weights, info: RunInfo) -> dict[str, Any]:
    """What a run says of its weights; as an override they keep its numbers apart from runs without them."""
    named = f"{weights.source} {weights.sha256[:8]}"
    return {
        "weights": weights.source,
        "weights_sha256": weights.sha256,
        "trained_on": weights.trained_on,
        "leaky_weights": weights.leaky,
        "overrides": {**info.overrides, "weights": named},
    }


def planned_images(plan: Plan, scenario: Scenario) -> int:
    """Images through the backbone in a whole run of plain replay."""
    train = plan.recipe.train.divided(plan.recipe.epochs_divisor)
    return sum(phase_steps(scenario, train, plan.recipe.memory)) * train.batch


def describe_run(
    plan: Plan,
    request: RunRequest,
    scenario: Scenario,
    seed: int,
    key: str,
    attempt: int,
    resolved: dict[str, Any],
) -> RunInfo:
    """The run's `run.json`."""
    learner, parts = plan.learner.kind, (plan.learner, *plan.plugins)
    settings = {name: value for part in parts for name, value in settings_of(part).items()}
    policy, memory_labels = label_policies(learner, plan.recipe)
    multi = scenario.label_kind == "multi"
    axes = ("model", "order", "sample") if request.vary == "all" else (request.vary,)
    return RunInfo(
        run_key=key,
        attempt=attempt,
        version=version("imbcil-bench"),
        method="+".join(part.name for part in parts),
        learner=plan.learner.name,
        plugins=tuple(part.name for part in plan.plugins),
        code={part.name: part.version for part in parts},
        seed=seed,
        vary=axes,
        protocol=scenario.settings.protocol,
        column=scenario.column,
        dataset=scenario.dataset,
        order=scenario.settings.order,
        imbalance=scenario.imbalance_text,
        recipe=plan.recipe.name,
        preset=plan.preset,
        memory=plan.recipe.memory.budget,
        precision=resolved["precision"],
        device=resolved["device"],
        compiled=resolved["compiled"],
        digest=scenario.digest or "",
        family=scenario.family or "",
        class_names=scenario.class_names,
        raw_counts=tuple(int(count) for count in scenario.raw_counts),
        rho100_counts=_rho100_counts(scenario),
        phases=tuple(
            PhaseInfo(
                lo=phase.lo, hi=phase.hi, classes=phase.classes,
                train_before_holdout=len(phase.train_before_holdout), train=len(phase.train), test=len(phase.test),
            )
            for phase in scenario.phases
        ),
        unranked_predictors=learner.unranked,
        embedded=scenario.embedded,
        upper_bound=learner.upper_bound,
        label_kind="multi" if multi else "single",
        label_policy=policy if multi else "",
        switches=switches_text(scenario),
        memory_labels=memory_labels if multi else "",
        oracle_memory=multi and memory_labels.startswith("oracle"),
        reconstruction=any(part.kind.reconstruction for part in parts),
        reduced=plan.recipe.reduced,
        overrides=overrides(plan),
        settings=settings,
        command=command_line(plan, request, seed),
        created_ms=now_ms(),
        torch_version=torch.__version__,
        hardware=hardware_name(torch.device(resolved["device"])),
    )  # fmt: skip


def _rho100_counts(scenario: Scenario) -> tuple[int, ...]:
    """Class sizes at rho 100 where they are others: by them a table can group classes alike at every rho."""
    counts = scenario.rho100_counts
    if counts is None or (counts == scenario.raw_counts).all():
        return ()
    return tuple(int(count) for count in counts)
