"""The learner contract: stages plus named loss terms. The harness owns everything else.

A learner's file defines one `Learner` whose name is the file's; a plug-in's file one `Plugin`. The order of
events is in `harness/runner.py`, composition in `harness/composition.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.batch import Batch, Outputs, Phase, Sweep
from imbcil.harness.losses import mean_over
from imbcil.harness.memory import Memory
from imbcil.harness.network.network import NetSpec, Network, freeze
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemoryPolicy, Optimisation, Policy
from imbcil.harness.stages import Group, Stage
from imbcil.harness.state import State
from imbcil.harness.tools import Criterion, Tools

__all__ = [
    "Batch", "Criterion", "Group", "Learner", "LearnerConfig", "Memory", "MixedConfig", "Needs", "NetSpec", "Network", "Optimisation",
    "Outputs", "Phase", "Plugin", "Pool", "Stage", "State", "Sweep", "Tools",
]  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """What a learner asks of its surroundings; conflicts with a plug-in are refused before data is opened.

    `criterion` is "ce" when every classification term of the main stages goes through `classify`, else a phrase
    that names the learner's own. `sampler` "own": some stage brings its own. `memory` "required" refuses 0;
    "none" keeps no exemplars. `teacher`: the default `end_phase` freezes one into `state["old"]`.
    `privileged`: may see past data (upper bounds). With several labels an image: `multi_head`, the heads where they
    differ; `hard_labels`: a term beside `classify` that needs exactly one label an image, "" for none; `policy` and `memory_labels`, what `labels.policy` and `labels.memory` are unless the run says otherwise.
    """

    labels: frozenset[str] = frozenset({"single"})
    head: frozenset[str] = frozenset({"linear", "cosine"})
    criterion: str = "ce"
    sampler: str = "any"
    memory: str = "optional"
    teacher: bool = False
    privileged: bool = False
    multi_head: frozenset[str] = frozenset()
    hard_labels: str = ""
    policy: Policy = "mask_current"
    memory_labels: MemoryPolicy = "capture_only"

    def heads(self, labels: str) -> frozenset[str]:
        """Head kinds that suit the learner with "single" or "multi" labels."""
        return self.multi_head if labels == "multi" and self.multi_head else self.head


class _Keeper:
    """Shared by learners and plug-ins: settings, state, and no other attribute that could be forgotten."""

    Config: ClassVar[type[Frozen]] = Frozen
    version: ClassVar[int] = 1  # raise by hand when results change
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # "released", "sound": settings that differ
    remedies: ClassVar[Mapping[str, str]] = {}  # loss term -> what to try where it is not finite
    reconstruction: ClassVar[bool] = False  # the paper left it open; tables mark the row
    _given: ClassVar[frozenset[str]] = frozenset({"cfg", "state", "tools", "memory", "name"})

    cfg: Any
    state: State
    tools: Tools
    name: str

    @classmethod
    def version_with(cls, cfg: Any) -> int:
        """Its version with these settings: higher than `version` where only some settings changed results."""
        return cls.version

    def __init__(self, cfg: Frozen, name: str) -> None:
        self.cfg = cfg
        self.name = name
        self.state = {}

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._given:
            raise ContractViolation(
                f"{type(self).__name__} sets self.{name}, which a restart would lose; keep it in self.state[{name!r}]."
            )
        object.__setattr__(self, name, value)


class LearnerConfig(Frozen):
    """Settings of a learner; `train` comes from the recipe unless overridden for this learner."""

    train: Optimisation = Optimisation()


class MixedConfig(LearnerConfig):
    """Of learners whose batches put draws of the memory beside new data (`mixed_stage`). `ratio`: new images for one
    replayed image of each draw."""

    ratio: float = Field(default=1.0, gt=0)


class Learner(_Keeper):
    """Base of all learners; as it stands it is experience replay."""

    contract: ClassVar[str] = "learner"
    Config: ClassVar[type[Frozen]] = LearnerConfig
    title: ClassVar[str] = ""  # how tables name the row; the file's name if empty
    needs: ClassVar[Needs] = Needs()
    upper_bound: ClassVar[bool] = False
    unranked: ClassVar[tuple[str, ...]] = ()  # predictors that tables never mark as best
    memory: Memory

    @classmethod
    def needs_with(cls, cfg: Any) -> Needs:
        """What it needs with these settings; `needs` holds for the defaults."""
        return cls.needs

    @property
    def net(self) -> Network:
        """The network that is trained and evaluated: `state["net"]`."""
        net: Network = self.state["net"]
        return net

    @property
    def multi(self) -> bool:
        """Whether an image of this run may have several labels."""
        return hasattr(self, "tools") and self.tools.multi

    @classmethod
    def check_classes(cls, cfg: Any, names: Sequence[str]) -> None:
        """Before anything is trained: raise BadInput if settings do not suit the classes (all, in order of arrival)."""

    def design(self, spec: NetSpec) -> NetSpec:
        """Change the network before it exists: backbone options, head kind, calibrators."""
        return spec

    def begin_phase(self, phase: Phase) -> None:
        """Once per phase; by default the head grows by the phase's classes."""
        self.net.grow(phase.hi - phase.lo)

    def stages(self, phase: Phase) -> Sequence[Stage]:
        """What is trained. Pure: the same answer when asked again after a restart."""
        return [Stage("train", phase.memory + phase.new, self.cfg.train)]

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        """Named scalar terms; their sum is minimised. The loop ran the network already."""
        return {"ce": self.classification_loss(batch, out.logits)}

    def adjust_gradients(self, batch: Batch, out: Outputs) -> None:
        """After the backward pass of the learner's own stages: add corrections to `.grad`, never assign."""

    def after_step(self, batch: Batch) -> None:
        """After each optimiser step of the learner's own stages."""

    def end_phase(self, phase: Phase) -> None:
        """Once after the last stage; by default exemplars are chosen and, if needed, a teacher is frozen."""
        self.keep_exemplars(phase)
        self.freeze_teacher()

    def embed(self, out: Outputs) -> Tensor:
        """Features [B, D] for herding and class means."""
        return out.features

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Predictor name -> scores [B, K] float32; the first name is primary. Called in evaluation mode."""
        return {"fc": self.net.calibrated(self.net(images), "test")}

    def classify(
        self, batch: Batch, logits: Tensor, targets: Tensor | None = None, classes: slice | None = None
    ) -> Tensor:
        """Classification loss, unreduced: [B] (one label an image) or [B, K'] (several), over `classes` of `logits`.
        The place where a plug-in puts another criterion."""
        span = slice(*(classes or slice(None)).indices(logits.shape[1]))
        return self.tools.criterion(
            batch, logits[:, span], batch.targets if targets is None else targets, span
        )

    def classification_loss(self, batch: Batch, logits: Tensor, classes: slice | None = None) -> Tensor:
        """`classify` as one number: the batch mean, or with several labels an image the mean over visible cells."""
        losses = self.classify(batch, logits, classes=classes)
        if batch.mask is None:
            return losses.mean()
        return mean_over(losses, batch.mask[:, classes or slice(None)])

    def own_classes(self, batch: Batch, logits: Tensor) -> Tensor:
        """Classification of a learner without memory: over the phase's own classes or, with several labels an image,
        over whatever columns the label policy shows."""
        newest = self.net.head.slices()[-1]
        return self.classification_loss(batch, logits, newest if batch.mask is None else None)

    def pseudo_targets(self, images: Tensor) -> Tensor:
        """What the label policy "pseudo_old" writes into the old columns of new images: float [B, K_old] in 0..1, NaN
        where nothing is known. By default 1 where the teacher's probability exceeds `labels.threshold`, else 0."""
        teacher: Network = self.state["old"]
        logits = teacher.calibrated(teacher(images), "teacher")
        return (logits.sigmoid() > self.tools.pseudo_threshold).float()

    def keep_exemplars(self, phase: Phase, sweep: Sweep | None = None, **extras: Tensor) -> Sweep:
        """Refill the memory from what it holds and the new data; one evaluation pass (or `sweep` over
        `phase.memory + phase.new`) serves choice and statistics. Returns the sweep of the kept rows."""
        if sweep is None:
            keeps = self.needs.memory != "none" and not self.memory.settings.empty
            sweep = self.tools.sweep(phase.memory + phase.new if keeps else Pool.empty())
        generator = self.tools.gen("exemplars", phase.index)
        chosen = self.memory.update(sweep.pool, sweep.features, phase.hi, phase.index, generator, **extras)
        kept = sweep[chosen]
        return Sweep(self.memory.pool(), kept.features, kept.logits, kept.targets, kept.mask)

    def rows_at_hand(self, phase: Phase) -> Pool:
        """All training rows at hand: new data and memory or, for an upper bound, past data."""
        return (phase.past if self.needs.privileged else phase.memory) + phase.new

    def freeze_teacher(self) -> None:
        """Put a frozen copy of the network into `state["old"]` if `needs.teacher`."""
        if self.needs.teacher:
            self.state["old"] = freeze(self.net)

    def teacher_outputs(self, batch: Batch, name: str = "old") -> Outputs | None:
        """What the frozen network in `state[name]` makes of a batch, without gradient; None if there is none."""
        if name not in self.state:
            return None
        teacher: Network = self.state[name]
        with torch.no_grad():
            return teacher(batch.images)  # type: ignore[no-any-return]

    def teacher_logits(self, batch: Batch) -> Tensor | None:
        """The teacher's logits [B, K_old] with its calibrators, without gradient; None in the first phase."""
        out = self.teacher_outputs(batch)
        logits: Tensor | None = None if out is None else self.state["old"].calibrated(out, "teacher")
        return logits


class Plugin(_Keeper):
    """Base of all plug-ins. `slots`: what it claims alone ("criterion", "sampler", "calibrator", "targets",
    "wrap:conv")."""

    contract: ClassVar[str] = "plugin"
    needs_counts: ClassVar[bool] = False  # class priors: a class without a training image is refused
    slots: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[frozenset[str]] = frozenset({"single", "multi"})
    needs_head: ClassVar[frozenset[str]] = frozenset({"any"})
    source: ClassVar[str] = ""  # paper and section

    @classmethod
    def claims(cls, cfg: Any) -> tuple[str, ...]:
        """What it claims with these settings; `slots` lists all that it ever claims."""
        return cls.slots

    def check_backbones(self, parts: Sequence[nn.Module]) -> str:
        """Before data is opened, on trunk and backbones without values: raise BadInput, or return a sentence to log."""
        return ""

    def design(self, spec: NetSpec) -> NetSpec:
        return spec

    def begin_phase(self, phase: Phase, learner: Learner) -> None: ...

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        """Append, replace or drop stages. Pure."""
        return stages

    def wants(self, stage: Stage) -> bool:
        """Whether this stage is wrapped."""
        return False

    def wrap(self, net: Network, only: Sequence[str] | None = None) -> list[str]:
        """Change the structure of modules (all that apply, or those named) and return their names."""
        return []

    def unwrap(self, net: Network) -> None:
        """Fold the wrapped structure back into an ordinary network."""

    def begin_stage(self, stage: Stage, learner: Learner) -> None:
        """Before the first step of any stage; `stage.pool` holds the rows that it draws from."""

    def prepare(self, batch: Batch) -> Batch:
        """Another batch in the place of this one, before the network sees it; new tensors, not changed ones."""
        return batch

    def end_stage(self, stage: Stage, learner: Learner) -> None: ...

    def criterion(self, inner: Criterion) -> Criterion:
        """Decorate f(batch, logits, targets, classes) -> losses."""
        return inner

    def extra_loss(self, batch: Batch, out: Outputs, learner: Learner) -> dict[str, Tensor]:
        """Further named scalar terms."""
        return {}

    def adjust_gradients(self, batch: Batch, out: Outputs, learner: Learner) -> None: ...

    def after_step(self, batch: Batch) -> None: ...

    def end_phase(self, phase: Phase, learner: Learner) -> None: ...
