"""Settings that recipes, learners and the loop share: optimisation, memory, backbone, augmentation, labels."""

import math
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Policy = Literal["mask_current", "assume_negative", "pseudo_old"]
MemoryPolicy = Literal["capture_only", "oracle_forward", "oracle_full", "relabel"]
MOST_MOMENTUM, LEAST_MOMENTUM = 0.95, 0.85  # of torch's OneCycleLR


class Optimisation(Frozen):
    """How one stage is optimised. Learning rates follow from (epoch, step) alone, so they need no state;
    `plateau` is the exception, whose state the loop owns and checkpoints."""

    unwritten: ClassVar = frozenset(
        {"first_phase", "first_phase_lr", "warmup", "peak", "cycle_momentum", "spare_norms"}
    )
    kind: Literal["sgd", "adam"] = "sgd"
    epochs: Annotated[int, Field(ge=0)] = 1
    first_phase: Positive = 1.0  # epochs of the first of several phases, as a multiple of `epochs`
    batch: Annotated[int, Field(ge=1)] = 128
    lr: NotNegative = 0.1
    first_phase_lr: Positive = 1.0  # rate of the first of several phases, as a multiple of `lr`
    schedule: Literal["constant", "multistep", "cosine", "one_cycle", "plateau"] = "constant"
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = ()  # epochs
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1  # at a milestone or after `patience` bad epochs
    warmup: Annotated[int, Field(ge=0)] = 0  # epochs in which the rate rises: epoch e has (e + 1) / warmup
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3  # one_cycle: share of the steps before it; 0.3 is torch's
    patience: Annotated[int, Field(ge=1)] = 5  # plateau: epochs without a better validation loss
    lr_min: NotNegative = 1e-4  # plateau: stop when the learning rate falls below
    weight_decay: NotNegative = 0.0
    spare_norms: bool = False  # no weight decay on biases and the weights of normalisations
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    cycle_momentum: bool = False  # one_cycle: as the rate rises, momentum (Adam's first beta) falls, and back
    nesterov: bool = False
    clip_norm: Positive | None = None  # total gradient norm
    clamp: Positive | None = None  # element-wise gradient bound

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.milestones and self.schedule != "multistep":
            raise ValueError(f"milestones need schedule: multistep, not {self.schedule}")
        if self.cycle_momentum and self.schedule != "one_cycle":
            raise ValueError(f"cycle_momentum needs schedule: one_cycle, not {self.schedule}")
        if self.warmup and self.schedule in ("one_cycle", "plateau"):
            raise ValueError(f"warmup goes with constant, multistep or cosine, not {self.schedule}")
        return self

    def divided(self, divisor: int) -> Self:
        """All numbers of epochs divided and rounded up, a plateau's patience too: a reduced recipe of the same shape."""
        if divisor == 1:
            return self
        return self.model_copy(
            update={
                "epochs": math.ceil(self.epochs / divisor),
                "milestones": tuple(math.ceil(epoch / divisor) for epoch in self.milestones),
                "warmup": math.ceil(self.warmup / divisor),
                "patience": math.ceil(self.patience / divisor),
            }
        )

    def in_first_phase(self) -> Self:
        """The same shape over `first_phase` times the epochs, at that phase's own rate."""
        own = self if self.first_phase == 1 else self.shortened(self.first_phase, first_phase=1.0)
        return own.model_copy(update={"lr": self.lr * self.first_phase_lr, "first_phase_lr": 1.0})

    def shortened(self, share: float, **changes: Any) -> Self:
        """The same shape over `share` of the epochs (rounded, at least one of them), with `changes` on top."""
        if not self.epochs:
            return self.model_copy(update=changes)
        marks = tuple(round(epoch * share) for epoch in self.milestones)
        epochs, warmup = max(round(self.epochs * share), 1), round(self.warmup * share)
        return self.model_copy(update={"epochs": epochs, "milestones": marks, "warmup": warmup, **changes})

    def lr_scale(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """Factor on `lr` at `step` of `steps` in `epoch` (all 0-based); 1 throughout for plateau."""
        rising = (epoch + 1) / self.warmup if epoch < self.warmup else 1.0
        return rising * self._scheduled(epoch, step, steps)

    def momentum_at(self, epoch: int, step: int, steps: int) -> float:
        """Momentum, or Adam's first beta, at `step` of `steps` in `epoch` (all 0-based); meant for `cycle_momentum`."""
        _, height = _cycle(epoch * steps + step, self.epochs * steps, self.peak)
        return MOST_MOMENTUM - (MOST_MOMENTUM - LEAST_MOMENTUM) * height

    def _scheduled(self, epoch: int, step: int, steps: int) -> float:
        if self.schedule == "multistep":
            return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / max(self.epochs, 1)))
        if self.schedule == "one_cycle":
            return one_cycle(epoch * steps + step, self.epochs * steps, self.peak)
        return 1.0


def one_cycle(step: int, total: int, warm_up: float = 0.3, start: float = 25.0, end: float = 1e4) -> float:
    """Factor on the peak learning rate at `step` of `total`: cosine up from 1/start, cosine down to 1/(start end).

    The two-phase form of torch.optim.lr_scheduler.OneCycleLR with its defaults.
    """
    rises, height = _cycle(step, total, warm_up)
    floor = 1 / start if rises else 1 / (start * end)
    return floor + (1 - floor) * height


def _cycle(step: int, total: int, warm_up: float) -> tuple[bool, float]:
    """Whether a cycle still rises at `step`, and how high it is between its ends (0) and its peak (1)."""
    peak = warm_up * total - 1  # between two steps, as a rule
    if peak > 0 and step <= peak:
        return True, 0.5 * (1 - math.cos(math.pi * step / peak))
    return False, 0.5 * (1 + math.cos(math.pi * (step - peak) / (total - 1 - peak)))


class MemorySettings(Frozen):
    """The exemplar memory of a run: `budget` is "20/class", a total such as "2000", or "0"."""

    budget: str = "20/class"
    old: Literal["truncate", "reselect"] = (
        "truncate"  # truncate in stored order, or herd anew from what is left
    )
    pick: Literal["herding", "random"] = "herding"

    @field_validator("budget", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        """One spelling for each budget: `020/class` is `20/class`, `0/class` is `0`."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            return value
        match = re.fullmatch(r"(\d{1,9})(/class)?", str(value).strip(), re.ASCII)
        if match is None:
            raise ValueError("write N/class, a total N, or 0")
        number = int(match[1])
        return f"{number}{match[2] or ''}" if number else "0"

    @property
    def per_class(self) -> int | None:
        return int(self.budget.removesuffix("/class")) if self.budget.endswith("/class") else None

    @property
    def total(self) -> int | None:
        return None if self.budget.endswith("/class") else int(self.budget)

    @property
    def empty(self) -> bool:
        return int(self.budget.removesuffix("/class")) == 0

    def check(self, n_classes: int) -> None:
        """Refuse a total that leaves some class without an exemplar. Raises BadInput."""
        if self.total is not None and 0 < self.total < n_classes:
            raise BadInput(
                f"--memory {self.budget} is less than one exemplar for each of the {n_classes} classes; "
                f"give at least {n_classes}, N/class, or 0."
            )


class BackboneSettings(Frozen):
    """Which backbone, by exact name, and its options (`stem`, `last_relu`, ...)."""

    unwritten: ClassVar = frozenset({"trained_on"})
    name: str = "small"
    options: dict[str, Any] = {}
    trained_on: tuple[
        str, ...
    ] = ()  # what weights from a file were trained on: imagenet, imagenet21k, coco, ...

    @field_validator("trained_on", mode="before")
    @classmethod
    def _as_names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class AugmentSettings(Frozen):
    """What is done to training images, in this order: crop, flip, jitter, AutoAugment, Cutout.

    crop: "none" (centre), "pad" (`pad` black pixels around, then a random window of the training size) or "resized"
    (the same border, then torchvision's RandomResizedCrop: a window of `scale` times the area and aspect `ratio`).
    flip: left-right with probability 1/2. brightness, contrast, saturation: strength s of a factor uniform in
    [max(0, 1 - s), 1 + s], in random order. cutout: side in pixels of a black square around a uniform centre. The
    multi-label recipe has, before all of that but the crop, `patch`: a rectangle of this share of each side in a random
    colour around a uniform centre (ASL's CutoutPIL), and `randaugment`: two operations a sample (`rand_augment`).
    """

    unwritten: ClassVar = frozenset({"patch", "randaugment"})
    crop: Literal["none", "pad", "resized"] = "none"
    pad: Annotated[int, Field(ge=0)] = 4
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    autoaugment: Literal["none", "cifar10", "imagenet"] = "none"
    cutout: Annotated[int, Field(ge=0)] = 0
    patch: NotNegative = 0.0
    randaugment: bool = False

    @model_validator(mode="after")
    def _ranges_rise(self) -> "AugmentSettings":
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise from its lower to its upper end, not [{low}, {high}]")
        return self


class LabelSettings(Frozen):
    """A recipe's `labels` section; it matters to multi-label protocols alone.

    `policy`, for new images: "mask_current", only the phase's own columns are visible; "assume_negative", the old
    ones read as 0; "pseudo_old", the old ones are filled by the learner's `pseudo_targets`. `memory`, for exemplars:
    "capture_only", what was visible when the row was stored; "oracle_forward", the truth of the row's own and all
    later columns (what KRT-R's code does); "oracle_full", of all columns; "relabel", the learner may write further
    cells. None: what the learner itself declares. `threshold`: of the default `pseudo_targets`.
    """

    policy: Policy | None = None
    memory: MemoryPolicy | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
