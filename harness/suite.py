"""Running what was asked for: every method with every seed, each in its folder, tracked, never twice."""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from filelock import Timeout

from imbcil.harness.base.errors import ImbcilError, RunStopped
from imbcil.harness.base.files import atomic_write
from imbcil.harness.composition import Plugins
from imbcil.harness.failure import ended_by
from imbcil.harness.figures.of_run import draw_run_figures
from imbcil.harness.hardware import keep_freed_memory
from imbcil.harness.images import ImageBank
from imbcil.harness.labels import LabelFirewall
from imbcil.harness.metrics import final_metrics
from imbcil.harness.network.runtime import Runtime, set_compile_limits
from imbcil.harness.phase_report import draw_matrix
from imbcil.harness.phases import arrival_labels, arrival_targets
from imbcil.harness.planning import PlannedRun, plan_request
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan, label_policies
from imbcil.harness.run_log import LoggedView
from imbcil.harness.runner import Interrupted, Runner, Setting
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder, Status
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.tracking import Tracker, resolve_tracking
from imbcil.harness.view import RunView
from imbcil.harness.weights import Weights
from imbcil.protocols.describe import scenario_record
from imbcil.protocols.scenario import Scenario


@dataclass
class Outcome:
    """What became of a request: its runs in order, and why some stopped."""

    store: Store
    runs: list[RunFolder] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    interrupted: str = ""


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
            break
    tracker.deliver_parent([run.folder for run in _of_ended_methods(planned)])
    return outcome


def _of_ended_methods(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs of the methods all of whose seeds have ended: only their means are complete."""
    ended = {"finished", "failed"}
    open_methods = {run.plan.method for run in planned if run.folder.state().status not in ended}
    return [run for run in planned if run.plan.method not in open_methods]


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
    folder, logged = run.folder, LoggedView(view, run.folder.log_path)
    runner = None
    try:
        runner = Runner(build_setting(run, request, TrackedView(logged, tracker, folder), stop))
        records = runner.run()
    except (Interrupted, KeyboardInterrupt) as error:
        _end(folder, "interrupted", str(error), tracker, logged)
        raise
    except (Exception, SystemExit) as error:  # a learner's code may fail in any way; the others go on
        if not isinstance(error, ImbcilError):
            logged.traceback(error)
        where = runner.where() if runner else "its preparation"
        trained = runner is not None and bool(runner.place.phase or runner.costs.images)  # any step, ever
        ended = ended_by(error, (run.plan.learner, *run.plan.plugins), where, trained, folder.log_path)
        _end(folder, "failed", str(ended), tracker, logged)
        raise ended from error
    draw_matrix(folder, run.info)
    if tracker.settings.uri is not None:  # else `sync` draws them, when somebody asks for a dashboard
        draw_run_figures(folder, run.info)
    final = final_metrics([record.metrics for record in records])
    folder.set_state("finished", final=final)
    runner.checkpoints.clear()
    tracker.deliver(folder, "finished")
    logged.run_finished(run.info, final)


def _end(folder: RunFolder, status: Status, reason: str, tracker: Tracker, log: LoggedView) -> None:
    """Write down how a run ended before its end; on a full disk not even that can be, and the reason is told all
    the same."""
    log.note(f"{status}: {reason}")
    with suppress(RunStopped):
        folder.set_state(status, reason)
    tracker.deliver(folder, status)


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
    keep_freed_memory()
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
    train, test = _banks(scenario, plan, device, run.weights)
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
        firewall=build_firewall(scenario, plan),
        checkpoint_every=request.checkpoint_every,
        stop=stop,
        weights=run.weights,
    )


def build_firewall(scenario: Scenario, plan: Plan) -> LabelFirewall | None:
    """What a multi-label run's learner sees of the labels; None with one label an image."""
    if scenario.label_kind != "multi":
        return None
    truth = torch.from_numpy(arrival_targets(scenario, "train"))
    policy, memory = label_policies(plan.learner.kind, plan.recipe)
    threshold = plan.recipe.labels.threshold
    return LabelFirewall(truth, policy, memory, threshold, plan.learner.kind.needs.privileged)


def _banks(
    scenario: Scenario, plan: Plan, device: torch.device, weights: Weights | None
) -> tuple[ImageBank, ImageBank]:
    images = scenario.images
    assert images is not None
    mean = images.mean if weights is None or weights.mean is None else weights.mean
    std = images.std if weights is None or weights.std is None else weights.std
    shared: dict[str, Any] = {
        "size": images.size, "mean": mean, "std": std, "device": device,
        "augmentation": plan.recipe.augment,
    }  # fmt: skip
    train = np.concatenate([np.concatenate([phase.train, phase.holdout]) for phase in scenario.phases])
    test = np.concatenate([phase.test for phase in scenario.phases])
    if scenario.label_kind == "multi":  # all test images are scored, and nobody reads these labels
        test = np.arange(len(images.test))
        return (
            ImageBank(images.train, images.train_labels, train, **shared),
            ImageBank(images.test, images.test_labels, test, **shared),
        )
    return (
        ImageBank(images.train, arrival_labels(scenario, images.train_labels), train, **shared),
        ImageBank(images.test, arrival_labels(scenario, images.test_labels), test, **shared),
    )
