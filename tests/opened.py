"""A first phase with its network, as a stage finds it: what the tests of the loop start from."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tiny import tiny_runner
from torch import Tensor

from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Learner, Phase, Plugin
from imbcil.harness.loop import (
    StageContext,
    StagePosition,
)
from imbcil.harness.network.selectors import select, set_modes
from imbcil.harness.optimiser import NamedOptimiser
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Stage
from imbcil.harness.tools import seeded

OPTIM = Optimisation(epochs=2, batch=8, lr=0.05)


class Opened:
    """A first phase with its network, as a stage finds it."""

    def __init__(self, store: Path, learner: Learner | None = None, plugins: Sequence[Plugin] = ()) -> None:
        self.runner: Runner = tiny_runner("replay", store)
        if learner is not None:
            self.runner.learner, self.runner.s.learner = learner, learner
        self.runner.plugins = Plugins(plugins)
        self.runner._equip()
        self.runner._build_network()
        self.learner = self.runner.learner
        with seeded("grow"):
            self.learner.net.grow(3)
        self.phase: Phase = self.runner._phase_view()
        self.seen: list[tuple[int, int]] = []
        self.means: list[dict[str, float]] = []

    def context(self, stage: Stage | None = None, position: StagePosition | None = None) -> StageContext:
        stage = stage or Stage("train", self.phase.new, OPTIM, owner="learner")
        assert isinstance(stage.pool, Pool)
        net = self.learner.net
        net.requires_grad_(False)
        for group in stage.train:
            for value in select(net, group.select).values():
                value.requires_grad_(True)
        set_modes(net, stage.live)
        made = StageContext(
            self.learner, self.runner.plugins, stage, stage.pool, self.runner.s.train_bank, 3, (0, 0, stage.name),
            NamedOptimiser(net, stage), position or StagePosition(),
            after_step=lambda images: self.seen.append((made.position.epoch, made.position.step)),
            after_epoch=lambda means, seconds, images: self.means.append(means),
        )  # fmt: skip
        return made

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.learner.net.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}
