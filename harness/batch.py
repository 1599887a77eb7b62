"""What a learner sees of one step (Batch, Outputs) and of one phase (Phase)."""

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.pools import Pool


@dataclass
class Batch:
    """One batch on the run's device. Class ids count in order of arrival.

    images [B, 3, H, W] float32, augmented and normalised; targets [B] int64 (one label an image) or [B, K]
    float32 (several); mask None or [B, K] bool, the columns that may be seen; index [B] dataset rows; slot [B]
    place in the memory, -1 for new data; stream [B], see `Streams`; extras {name: [B, w]} stored with
    exemplars, NaN where there is none; counts [K] float32 rows of the stage's pool per class; progress in 0..1
    over the stage; scratch: free for one step; shares: None or [B, K] float32, rows sum to 1: how much of each label
    is in an image that a plug-in mixed, where `targets` names only the image it started from.
    """

    images: Tensor
    targets: Tensor
    mask: Tensor | None
    index: Tensor
    slot: Tensor
    stream: Tensor
    counts: Tensor
    stage: str
    epoch: int
    step: int  # in the epoch
    steps: int  # of the epoch
    total: int  # steps of the stage
    extras: dict[str, Tensor] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)
    shares: Tensor | None = None

    @property
    def progress(self) -> float:
        return (self.epoch * self.steps + self.step) / max(self.total, 1)

    def label_shares(self, n_classes: int) -> Tensor:
        """How much of each label is in each image [B, K]: one 1 a row, the shares of a mixed one, or, with several
        labels an image, a 1 for each visible positive."""
        if self.targets.is_floating_point():
            return (self.targets[:, :n_classes] == 1).float()
        if self.shares is not None:
            return self.shares
        return F.one_hot(self.targets, n_classes).float()


@dataclass
class Outputs:
    """What the network made of a batch: raw logits [B, K] and features [B, D], both float32; maps, the
    backbone's stage outputs; extras such as "cos" [B, K] and "aux" [B, K]."""

    logits: Tensor
    features: Tensor
    maps: list[Tensor] = field(default_factory=list)
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """All that a learner may know of a phase. `seen_counts` [hi]: training images of each class in its own
    phase, after the hold-out. `names` [hi]: of the classes so far, in order of arrival. Asking for `past` raises
    PermissionError unless the learner is privileged."""

    index: int
    lo: int
    hi: int
    new: Pool
    memory: Pool
    holdout: Pool
    seen_counts: Tensor
    names: tuple[str, ...] = ()
    _past: Pool | None = None

    @property
    def old(self) -> slice:
        return slice(0, self.lo)

    @property
    def cur(self) -> slice:
        return slice(self.lo, self.hi)

    @property
    def past(self) -> Pool:
        """Training rows of all earlier phases: only for upper bounds."""
        if self._past is None:
            raise PermissionError(
                "Past data are closed to this learner; declare needs.privileged to see them."
            )
        return self._past


@dataclass(frozen=True)
class Sweep:
    """One evaluation pass over a pool: features [N, D] and logits [N, K] (float32, CPU), targets as in a batch."""

    pool: Pool
    features: Tensor
    logits: Tensor
    targets: Tensor
    mask: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> "Sweep":
        mask = None if self.mask is None else self.mask[rows]
        return Sweep(self.pool[rows], self.features[rows], self.logits[rows], self.targets[rows], mask)
