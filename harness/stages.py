"""Stages: what is trained, on which rows, in which order, and how. Plain data that a learner returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from imbcil.harness.pools import Pool
from imbcil.harness.samplers import SamplerPlan, Shuffle, Streams
from imbcil.harness.settings import Optimisation

if TYPE_CHECKING:
    from imbcil.harness.batch import Batch, Outputs, Phase

LossFunction = Callable[["Batch", "Outputs"], dict[str, Tensor]]


class Group:
    """Parameters that train together. `select`: names such as `backbones`, `head.new`, `calibrators.lws.*.a`;
    a leading `-` removes. `lr` multiplies the stage's learning rate; `wd` replaces its weight decay;
    `schedule(epoch, epochs)` replaces its schedule (a pure factor on the learning rate)."""

    def __init__(
        self,
        *select: str,
        lr: float = 1.0,
        wd: float | None = None,
        schedule: Callable[[int, int], float] | None = None,
    ) -> None:
        self.select = select
        self.lr = lr
        self.wd = wd
        self.schedule = schedule


@dataclass(frozen=True)
class Stage:
    """One training stage of a phase. A callable `pool` is resolved once, when the stage opens, and its rows
    go into the checkpoint. `begin` and `end` run once and may replace the network; `loss` defaults to the
    learner's; `val` is the pool that a plateau schedule watches; `live` names frozen modules whose BatchNorm
    statistics still move. `owner` is filled in by the harness: "learner" or a plug-in's name."""

    name: str
    pool: Pool | Callable[[], Pool]
    optim: Optimisation
    train: tuple[Group, ...] = field(default_factory=lambda: (Group("all"),))
    sampler: SamplerPlan = Shuffle()  # noqa: RUF009 - frozen and without state
    loss: LossFunction | None = None
    begin: Callable[[], None] | None = None
    end: Callable[[], None] | None = None
    val: Pool | None = None
    live: tuple[str, ...] = ()
    owner: str = ""


def replace_shuffles(stages: Sequence[Stage], sampler: SamplerPlan) -> list[Stage]:
    """The same stages, with `sampler` where the learner's own shuffle their pool."""
    return [
        replace(stage, sampler=sampler)
        if stage.owner == "learner" and isinstance(stage.sampler, Shuffle)
        else stage
        for stage in stages
    ]


def mixed_stage(phase: "Phase", optim: Optimisation, draws: int, ratio: float) -> Stage:
    """Batches of new data with `draws` independent draws of the memory beside, `ratio` new images for one replayed."""
    return Stage("train", phase.memory + phase.new, optim, sampler=Streams(draws=draws, ratio=ratio))
