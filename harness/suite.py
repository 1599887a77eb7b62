"""Running what was asked for: every method with every seed, each in its folder, tracked, never twice."""

import json
import threading
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from filelock import Timeout

from imbcil.harness.base.errors import ImbcilError, RunStopped
from imbcil.harness.base.files import atomic_write
from imbcil.harness.compilation import decide_compilation
from imbcil.harness.composition import Plugins
from imbcil.harness.identity import command_line, run_key, settings_of, stored_config
from imbcil.harness.images import ImageBank
from imbcil.harness.metrics import final_metrics
from imbcil.harness.network.runtime import Runtime, set_compile_limits
from imbcil.harness.overrides import overrides
from imbcil.harness.phase_report import draw_matrix
from imbcil.harness.phases import arrival_labels, steps_planned
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import (
    Plan,
    protocol_settings,
    resolve_device,
    resolve_plans,
    resolve_precision,
    resolve_recipe,
    resolved_root,
)
from imbcil.harness.runner import Interrupted, Runner, Setting
from imbcil.harness.store.layout import Store, attempt_key, store_root
from imbcil.harness.store.run_folder import RunFolder, now_ms
from imbcil.harness.store.run_info import PhaseInfo, RunInfo
from imbcil.harness.tracking import Tracker, resolve_tracking
from imbcil.harness.view import RunView
from imbcil.protocols.describe import scenario_record
from imbcil.protocols.scenario import Scenario, build_scenario


@dataclass(frozen=True)
class PlannedRun:
    """One run, ready to start: its folder may hold a part or all of it already."""

    plan: Plan
    info: RunInfo
    config: str
    scenario: Scenario
    folder: RunFolder
    device: torch.device


@dataclass
class Outcome:
    """What became of a request: its runs in order, and why some stopped."""

    store: Store
    runs: list[RunFolder] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    interrupted: str = ""


def plan_request(request: RunRequest, view: RunView) -> tuple[Store, list[PlannedRun]]:
    """Resolve everything and refuse all bad input; nothing is trained or written."""
    recipe, said = resolve_recipe(request)
    plans = resolve_plans(request, recipe)
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device)
    store = Store(store_root(request.store))
    for sentence in said:
        view.message(sentence)
    planned = []
    scenarios: dict[str, Scenario] = {}
    for plan in plans:
        for seed in request.seeds:
            settings = protocol_settings(request, recipe, seed)
            name = settings.model_dump_json()
            if name not in scenarios:
                scenarios[name] = build_scenario(settings, data_root=resolved_root(request.data_root))
                recipe.memory.check(len(scenarios[name].order))
            planned.append(plan_run(plan, request, scenarios[name], seed, device, precision, store))
    return store, planned


def plan_run(
    plan: Plan,
    request: RunRequest,
    scenario: Scenario,
    seed: int,
    device: torch.device,
    precision: str,
    store: Store,
) -> PlannedRun:
    """One run with its identity, settings and folder."""
    compiled = decide_compilation(request.compile, device, precision, planned_images(plan, scenario))
    resolved = {"precision": precision, "compiled": compiled, "device": device.type}
    key = run_key(plan, request, scenario, seed, resolved)
    attempts = store.attempts(key)
    attempt = max(len(attempts), 1)
    if request.force and attempts and attempts[-1].state().status == "finished":
        attempt += 1
    folder = store.run(attempt_key(key, attempt))
    info = describe_run(plan, request, scenario, seed, folder.path.name, attempt, resolved)
    return PlannedRun(plan, info, stored_config(plan, request, seed, resolved), scenario, folder, device)


def planned_images(plan: Plan, scenario: Scenario) -> int:
    """Images through the backbone in a whole run of plain replay."""
    train, memory = plan.recipe.train.divided(plan.recipe.epochs_divisor), plan.recipe.memory
    per_class = memory.per_class or (memory.total or 0) // max(len(scenario.order), 1)
    return steps_planned(scenario, train.epochs, train.batch, per_class) * train.batch


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
    axes = ("model", "order", "sample") if request.vary == "all" else (request.vary,)
    return RunInfo(
        run_key=key,
        attempt=attempt,
        version=version("imbcil-bench"),
        method="+".join(part.name for part in parts),
        learner=plan.learner.name,
        plugins=tuple(part.name for part in plan.plugins),
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
        oracle_memory=False,
        reconstruction=any(part.kind.reconstruction for part in parts),
        reduced=plan.recipe.reduced,
        overrides=overrides(plan),
        settings=settings,
        command=command_line(plan, request, seed),
        created_ms=now_ms(),
        torch_version=torch.__version__,
    )  # fmt: skip


def run_request(request: RunRequest, view: RunView, stop: threading.Event | None = None) -> Outcome:
    """Train what is not finished yet; one failed run does not keep the others from being tried."""
    store, planned = plan_request(request, view)
    store.prepare()
    tracker = Tracker(
        resolve_tracking(store, request.tracking_uri, disabled=request.no_tracking), store, view.warning
    )
    outcome = Outcome(store)
    for run in planned:
        outcome.runs.append(run.folder)
        try:
            train_run(run, request, view, tracker, outcome, stop)
        except RunStopped as error:
            outcome.failures.append(str(error))
            view.warning(str(error))
        except Interrupted as place:
            outcome.interrupted = str(place)
            return outcome
    tracker.deliver_parent([run.folder for run in planned])
    return outcome


def train_run(
    run: PlannedRun,
    request: RunRequest,
    view: RunView,
    tracker: Tracker,
    outcome: Outcome,
    stop: threading.Event | None,
) -> None:
    folder = run.folder
    if folder.path.exists() and folder.state().status == "finished":
        view.message(f"{run.info.method} s{run.info.seed} is finished already ({run.info.run_key}).")
        tracker.deliver(folder, "finished")
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = folder.owner_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        outcome.busy.append(run.info.run_key)
        view.warning(
            f"{run.info.method} s{run.info.seed} is being trained by another process; it is left to that one."
        )
        return
    try:
        if folder.state().status == "finished":  # finished by somebody else in the meantime
            return
        if not (folder.path / "run.json").exists():
            folder.create(run.info, run.config)
            record = json.dumps(scenario_record(run.scenario), indent=1)
            atomic_write(folder.path / "scenario.json", record)
        folder.set_state("running")
        tracker.deliver(folder, "running")
        _train_locked(run, request, view, tracker, stop)
    finally:
        lock.release()


def _train_locked(
    run: PlannedRun, request: RunRequest, view: RunView, tracker: Tracker, stop: threading.Event | None
) -> None:
    folder = run.folder
    try:
        runner = Runner(build_setting(run, request, TrackedView(view, tracker, folder), stop))
        records = runner.run()
    except (RunStopped, Interrupted, ImbcilError, KeyboardInterrupt, torch.OutOfMemoryError) as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        status, reason = ("interrupted", str(error)) if stopped else ("failed", str(error))
        folder.set_state(status, reason)
        tracker.deliver(folder, status)
        if isinstance(error, torch.OutOfMemoryError):
            raise RunStopped(
                f"The device ran out of memory ({run.info.method}); try a smaller --set train.batch."
            ) from None
        raise
    draw_matrix(folder, run.info)
    final = final_metrics([record.metrics for record in records])
    folder.set_state("finished", final=final)
    runner.checkpoints.clear()
    tracker.deliver(folder, "finished")
    view.run_finished(run.info, final)


class TrackedView:
    """Passes everything on and has the tracker deliver after each phase."""

    def __init__(self, view: RunView, tracker: Tracker, folder: RunFolder) -> None:
        self.view, self.tracker, self.folder = view, tracker, folder
        self.message, self.warning = view.message, view.warning
        self.run_started, self.epoch, self.run_finished = view.run_started, view.epoch, view.run_finished

    def phase_finished(self, info: RunInfo, record: Any) -> None:
        self.tracker.deliver(self.folder, "running")
        self.view.phase_finished(info, record)


def build_setting(
    run: PlannedRun, request: RunRequest, view: RunView, stop: threading.Event | None
) -> Setting:
    """Learner, plug-ins, image banks and runtime of one run."""
    plan, scenario, device = run.plan, run.scenario, run.device
    if run.info.compiled:
        set_compile_limits()
    if device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.set_float32_matmul_precision("high" if run.info.precision == "tf32" else "highest")
    runtime = Runtime(
        device=device,
        autocast=torch.bfloat16 if run.info.precision == "bf16" else None,
        compiled=run.info.compiled,
    )
    train, test = _banks(scenario, plan, device)
    return Setting(
        info=run.info,
        scenario=scenario,
        recipe=plan.recipe,
        learner=plan.learner.kind(plan.learner.cfg, plan.learner.name),
        plugins=Plugins([part.kind(part.cfg, part.name) for part in plan.plugins]),
        runtime=runtime,
        train_bank=train,
        test_bank=test,
        folder=run.folder,
        view=view,
        checkpoint_every=request.checkpoint_every,
        stop=stop,
    )


def _banks(scenario: Scenario, plan: Plan, device: torch.device) -> tuple[ImageBank, ImageBank]:
    images = scenario.images
    assert images is not None
    shared: dict[str, Any] = {
        "size": images.size, "mean": images.mean, "std": images.std, "device": device,
        "augmentation": plan.recipe.augment,
    }  # fmt: skip
    train = np.concatenate([np.concatenate([phase.train, phase.holdout]) for phase in scenario.phases])
    test = np.concatenate([phase.test for phase in scenario.phases])
    return (
        ImageBank(images.train, arrival_labels(scenario, images.train_labels), train, **shared),
        ImageBank(images.test, arrival_labels(scenario, images.test_labels), test, **shared),
    )
