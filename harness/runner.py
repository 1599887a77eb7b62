"""A run's events, phase by phase: build, train the stages, end the phase, evaluate, record, checkpoint."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from imbcil.harness import resume
from imbcil.harness.batch import Phase
from imbcil.harness.composition import Plugins, check_effect, check_head
from imbcil.harness.contract import Learner
from imbcil.harness.costs import Costs
from imbcil.harness.evaluation import evaluate_phase
from imbcil.harness.images import ImageBank
from imbcil.harness.label_quality import memory_quality, pseudo_quality
from imbcil.harness.labels import LabelFirewall
from imbcil.harness.loop import StageContext, StagePosition, checked_means, train_stage
from imbcil.harness.memory import Memory
from imbcil.harness.network.network import Network, starting_spec
from imbcil.harness.network.runtime import Runtime, evaluation_batch
from imbcil.harness.network.selectors import select, set_modes
from imbcil.harness.optimiser import NamedOptimiser
from imbcil.harness.pace import Pace
from imbcil.harness.phase_report import name_unmeasured, write_phase_report
from imbcil.harness.phases import open_rows, phase_steps, phase_view
from imbcil.harness.pools import Pool
from imbcil.harness.recipes import Recipe
from imbcil.harness.resume import Place
from imbcil.harness.stages import Stage
from imbcil.harness.store.checkpoint import CheckpointStore
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.tools import Tools, base_criterion, seeded
from imbcil.harness.view import EpochProgress, RunView
from imbcil.harness.weights import Weights, load_into, network_parts
from imbcil.protocols.scenario import Scenario


class Interrupted(Exception):
    """The run was asked to stop and has saved where it stands."""


@dataclass
class Setting:
    """All that a run is made of; built by `harness/suite.py`."""

    info: RunInfo
    scenario: Scenario
    recipe: Recipe
    learner: Learner
    plugins: Plugins
    runtime: Runtime
    train_bank: ImageBank
    test_bank: ImageBank
    folder: RunFolder
    view: RunView
    firewall: LabelFirewall | None = None  # of runs with several labels an image
    checkpoint_every: float = 60.0  # seconds; 0 = after every step
    stop: threading.Event | None = None
    weights: Weights | None = None  # of trunk and backbones when the run begins


class Runner:
    """Takes a run from wherever its folder stands to its end. `on_phase` is told after each finished phase."""

    def __init__(self, setting: Setting) -> None:
        self.s = setting
        self.learner, self.plugins = setting.learner, setting.plugins
        self.seed = setting.info.seed if "model" in setting.info.vary else 0
        self.place = Place()
        self.position: StagePosition | None = None  # in the stage that trains now
        self.saved_at = time.monotonic()
        self.costs = Costs(setting.runtime.device)
        self.checkpoints = CheckpointStore(setting.folder.checkpoints, setting.view.warning)
        self.pace = Pace(phase_steps(setting.scenario, setting.recipe.train, setting.recipe.memory))
        self.stage_count = 1
        self._equip()

    # --- setting up ---------------------------------------------------------------------------------------------

    def _equip(self) -> None:
        memory = Memory(self._memory_settings(), self.s.firewall)
        tools = Tools(self.s.train_bank, self.seed, self.learner.embed, self.s.firewall, memory)
        inner = self.plugins.criterion(base_criterion)

        def counted(*arguments: Any) -> Tensor:
            self.plugins.criterion_called = True
            return inner(*arguments)

        tools.criterion = counted
        self.learner.tools = tools
        self.learner.memory = memory
        for plugin in self.plugins.items:
            plugin.tools = tools

    def _memory_settings(self) -> Any:
        settings = self.s.recipe.memory
        return (
            settings.model_copy(update={"budget": "0"}) if self.learner.needs.memory == "none" else settings
        )

    def _build_network(self) -> None:
        backbone = self.s.recipe.backbone
        spec = starting_spec(backbone.name, backbone.options)
        spec = self.plugins.design(self.learner.design(spec))
        check_head(spec, self.learner, self.plugins, self.s.scenario.label_kind)
        with seeded(self.seed, "network"):
            net = self.learner.state["net"] = Network(spec, self.s.runtime)
        if self.s.weights is not None:
            for part in network_parts(net):
                load_into(part, self.s.weights)

    # --- the events ---------------------------------------------------------------------------------------------

    def run(self) -> list[PhaseRecord]:
        """Train what is left. Raises Interrupted when asked to stop, RunStopped when it cannot go on."""
        found = resume.load(self.checkpoints, self.learner, self.plugins, self.costs, self.s.runtime)
        self.place = found or self.place
        self.s.view.run_started(self.s.info, self.where() if found else "")
        while self.place.phase < len(self.s.scenario.phases):
            self._run_phase()
        return self.s.folder.records()

    def _run_phase(self) -> None:
        learner, place, t = self.learner, self.place, self.place.phase
        if place.point == "start":
            if t == 0:
                self._build_network()
            phase = self._phase_view(begins=True)
            learner.tools.net = learner.net
            learner.tools.logged, learner.tools.logged_per_class = {}, {}
            with seeded(self.seed, "begin", t):
                learner.begin_phase(phase)
                for plugin in self.plugins.items:
                    plugin.begin_phase(phase, learner)
            self.costs.reset()
            place.point, place.stage = "stages", 0
            self.save()
        phase = self._phase_view()
        learner.tools.net = learner.net
        while place.stage < len(stages := self.plugins.stages(phase, learner)):
            self.stage_count = len(stages)
            self._run_stage(phase, stages[place.stage])
            place.stage += 1
            self.save()
        if t == 0:
            check_effect(self.plugins, stages)
        self._end_phase(phase)

    def _run_stage(self, phase: Phase, stage: Stage) -> None:
        learner, opened = self.learner, self.place.open_stage
        self.place.open_stage = None
        key = (self.seed, phase.index, stage.name)
        stage = self._scheduled(stage, phase)
        if opened is None:
            with seeded(*key, "begin"):
                if stage.begin is not None:
                    stage.begin()
                learner.tools.net = learner.net
                pool = stage.pool() if callable(stage.pool) else stage.pool
                stage = replace(stage, pool=pool)
                if not len(pool):
                    self.s.view.message(f"{self.where()}: stage {stage.name} has no rows and is skipped")
                    return
                self._allow_gradients(stage)
                self.plugins.wrap(learner.net, stage)
                for plugin in self.plugins.items:
                    plugin.begin_stage(stage, learner)
            position = StagePosition()
        else:
            pool, position = Pool(*(column.cpu() for column in opened["pool"])), opened["position"]
        self._allow_gradients(stage)
        set_modes(learner.net, stage.live)
        optimiser = NamedOptimiser(learner.net, stage)
        if opened is not None:
            optimiser.load_state(opened["optimiser"])
        self.s.runtime.compile_sizes = frozenset(
            {evaluation_batch(self.s.train_bank.size), stage.optim.batch}
        )
        context = StageContext(
            learner, self.plugins, stage, pool, self.s.train_bank, phase.hi, key, optimiser, position,
            after_step=lambda images: self._after_step(context, images),
            after_epoch=lambda means, seconds, images: self._after_epoch(context, means, seconds, images),
            counts=None if opened is None else opened.get("counts"), phases=len(self.s.scenario.phases),
        )  # fmt: skip
        self.position = position
        train_stage(context)
        self.position = None
        with seeded(*key, "end"):
            for plugin in reversed(self.plugins.items):
                plugin.end_stage(stage, learner)
            self.plugins.unwrap(learner.net)
            if stage.end is not None:
                stage.end()
        learner.net.requires_grad_(True)
        learner.tools.net = learner.net

    def _scheduled(self, stage: Stage, phase: Phase) -> Stage:
        """The stage with the recipe's divisor, and as long as `first_phase` says where it opens several phases."""
        optim = stage.optim.divided(self.s.recipe.epochs_divisor)
        if phase.index == 0 and len(self.s.scenario.phases) > 1 and stage.owner == "learner":
            optim = optim.in_first_phase()
        return replace(stage, optim=optim)

    def _allow_gradients(self, stage: Stage) -> None:
        net = self.learner.net
        net.requires_grad_(False)
        for group in stage.train:
            for value in select(net, group.select).values():
                value.requires_grad_(True)

    def _end_phase(self, phase: Phase) -> None:
        learner = self.learner
        quality = pseudo_quality(self.s.firewall, learner, self.s.train_bank, phase)
        ended = time.monotonic()
        with seeded(self.seed, "end", phase.index):
            for plugin in self.plugins.items:
                plugin.end_phase(phase, learner)
            learner.tools.net = learner.net
            learner.end_phase(phase)
        learner.tools.net = learner.net
        self.costs.end_s += time.monotonic() - ended
        quality |= memory_quality(self.s.firewall, learner.memory)
        started = time.monotonic()
        banks = {"train": self.s.train_bank, "test": self.s.test_bank}
        scores, arrays = evaluate_phase(learner, self.s.scenario, phase, banks)
        self.costs.evaluation_s += time.monotonic() - started
        self.s.folder.save_scores(phase.index, arrays)
        record = write_phase_report(
            self.s.folder, self.s.info, learner, phase.index, scores, arrays, self.costs, quality
        )
        name_unmeasured(self.s.info, phase.index, arrays, self.s.view.message)
        self.place = Place(phase.index + 1)
        self.save()
        self.s.view.phase_finished(self.s.info, record)

    def _phase_view(self, begins: bool = False) -> Phase:
        scenario, t, firewall = self.s.scenario, self.place.phase, self.s.firewall
        if firewall is not None:
            firewall.open(scenario.phases[t].lo, scenario.phases[t].hi, open_rows(scenario, t))
            if begins:
                firewall.refresh(self.learner.memory)
        return phase_view(scenario, t, self.learner.memory.pool(), self.learner.needs.privileged, firewall)

    # --- inside a stage -----------------------------------------------------------------------------------------

    def _after_step(self, context: StageContext, images: int) -> None:
        self.costs.images += images
        stopping = self.s.stop is not None and self.s.stop.is_set()
        if stopping or time.monotonic() - self.saved_at >= self.s.checkpoint_every:
            self.save(context)
        if stopping:
            raise Interrupted(self.where())

    def _after_epoch(
        self, context: StageContext, means: dict[str, float], seconds: float, images: int
    ) -> None:
        self.costs.train_s += seconds
        self.costs.trained_images += images
        position, stage = context.position, context.stage
        share = (self.place.stage + position.epoch / stage.optim.epochs) / self.stage_count
        fraction = self.pace.fraction(self.place.phase, share)
        self.s.view.epoch(
            EpochProgress(
                run=f"{self.s.info.method} s{self.s.info.seed}",
                run_key=self.s.info.run_key,
                phase=self.place.phase,
                phases=len(self.s.scenario.phases),
                stage=stage.name,
                epoch=position.epoch,
                epochs=stage.optim.epochs,
                terms=means,
                images_per_s=images / max(seconds, 1e-9),
                seconds_left=self.pace.seconds_left(fraction),
                fraction=fraction,
            )
        )

    def where(self) -> str:
        """`phase 3 of 10, epoch 61, step 4`: phases and epochs counted from 1, steps that are done."""
        opened = self.place.open_stage
        inside = self.position or (opened["position"] if opened else None)
        phases = len(self.s.scenario.phases)
        where = f"phase {min(self.place.phase + 1, phases)} of {phases}"  # all are done when the last one is saved
        return where if inside is None else f"{where}, epoch {inside.epoch + 1}, step {inside.step}"

    # --- checkpoints --------------------------------------------------------------------------------------------

    def save(self, context: StageContext | None = None) -> None:
        """Write a checkpoint of this very moment."""
        if context is not None:
            checked_means(context.position.sums, max(context.position.step, 1), context)
        where = self.where()
        resume.save(self.checkpoints, self.place, self.learner, self.plugins, self.costs, context, where)
        self.saved_at = time.monotonic()
