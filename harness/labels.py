"""The label firewall of multi-label runs: the one place that holds ground truth, and what it lets through.

Visibility is decided here before a batch exists. A hidden cell is NaN in the targets and False in the mask, so that
a learner which ignores the mask ends with a loss that is not finite instead of with a leak.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemoryPolicy, Policy

if TYPE_CHECKING:
    from imbcil.harness.memory import Memory

IGNORED = 255  # a cell that is neither positive nor negative, such as VOC's difficult objects
HIDDEN, GIVEN, PAST_MODEL, CURRENT_MODEL = range(4)  # provenance of a memory cell


class LabelFirewall:
    """Ground truth of the training images and the window of it that is open.

    truth: uint8 [N, C] in order of arrival, 1 positive, 0 negative, 255 ignored. privileged: all columns of seen
    classes are visible in every row (upper bounds).
    """

    def __init__(
        self, truth: Tensor, policy: Policy, memory: MemoryPolicy, threshold: float, privileged: bool = False
    ) -> None:
        self._truth = truth.float()
        self._ignored = truth == IGNORED
        self._open = torch.zeros(len(truth), dtype=torch.bool)
        self.policy, self.memory_policy, self.threshold = policy, memory, threshold
        self.privileged = privileged
        self.lo = self.hi = 0

    def open(self, lo: int, hi: int, rows: Tensor) -> None:
        """Begin a phase: its classes are lo..hi-1, its new images `rows`; nothing else of the truth is visible."""
        self.lo, self.hi = lo, hi
        self._open = torch.zeros_like(self._open)
        self._open[rows] = True

    def new_pool(self, rows: Tensor) -> Pool:
        """New data as a pool: a row's quota class is the rarest of its visible positives among these rows."""
        positives = self._given(rows)[0] == 1
        counts = positives.sum(dim=0).expand(len(rows), self.hi)
        rarest = torch.where(positives, counts, len(rows) + 1).argmin(dim=1)
        first = 0 if self.privileged else self.lo
        quota = torch.where(positives.any(dim=1), rarest, first)
        return Pool(rows, quota, torch.full_like(rows, -1), positives)

    def view(self, pool: Pool, memory: "Memory") -> tuple[Tensor, Tensor]:
        """Targets float32 [N, hi], NaN where hidden, and the mask [N, hi] of what may be seen.

        Raises ContractViolation for rows that are neither the phase's new data nor the memory's of now.
        """
        is_new = pool.slot < 0
        targets = torch.full((len(pool), self.hi), float("nan"))
        if bool(is_new.any()):
            seen, _ = self._given(pool.index[is_new])
            if self.policy == "assume_negative" and not self.privileged:
                seen[:, : self.lo] = 0.0
            targets[is_new] = seen
        if not bool(is_new.all()):
            held, slots = ~is_new, pool.slot[~is_new]
            if int(slots.max()) >= len(memory) or not torch.equal(memory.index[slots], pool.index[held]):
                raise ContractViolation(
                    "A pool of exemplars is older than the memory; ask for memory.pool() anew."
                )
            stored = memory.visible_targets()[slots]
            targets[held, : stored.shape[1]] = stored
        return targets, ~targets.isnan()

    def capture(self, rows: Tensor) -> dict[str, Tensor]:
        """What an exemplar keeps of its labels when it is stored: `targets` float32 and `prov` uint8, [N, hi]."""
        targets, known = self._given(rows)
        return {"targets": targets, "prov": torch.where(known, GIVEN, HIDDEN).to(torch.uint8)}

    def refresh(self, memory: "Memory") -> None:
        """At the beginning of a phase: give the memory's labels the new columns; an oracle fills them in."""
        if "prov" not in memory.extras:
            return
        targets = torch.full((len(memory), self.hi), float("nan"))
        prov = torch.zeros(len(memory), self.hi, dtype=torch.uint8)
        width = memory.extras["prov"].shape[1]
        targets[:, :width], prov[:, :width] = memory.extras["targets"], memory.extras["prov"]
        if self.memory_policy.startswith("oracle"):
            shown = ~self._ignored[memory.index, : self.hi]
            if self.memory_policy == "oracle_forward":
                own = (prov == GIVEN).to(torch.uint8).argmax(dim=1, keepdim=True)  # a row's first column
                shown &= torch.arange(self.hi) >= own
            targets = torch.where(shown, self._truth[memory.index, : self.hi], targets)
            prov[shown] = GIVEN
        memory.extras |= {"targets": targets, "prov": prov}

    def truth(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For the harness's measurements alone: (truth [N, hi], ignored [N, hi])."""
        return self._truth[rows, : self.hi], self._ignored[rows, : self.hi]

    def _given(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Visible truth of new rows [N, hi], NaN elsewhere, and where it is visible."""
        if not self.privileged and not bool(self._open[rows].all()):
            raise ContractViolation(
                "Labels of images outside this phase's new data are closed; reach old images through the memory."
            )
        known = ~self._ignored[rows, : self.hi]
        if not self.privileged:
            known[:, : self.lo] = False
        return torch.where(known, self._truth[rows, : self.hi], float("nan")), known


def fill_pseudo(
    targets: Tensor, slot: Tensor, lo: int, images: Tensor, hook: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """(targets, mask) with the old columns of new rows filled by a learner's hook on their images [B, 3, H, W]."""
    filled = targets.clone()
    new = (slot < 0).to(targets.device)
    guessed = hook(images).to(targets)
    filled[:, :lo] = torch.where(new.unsqueeze(1), guessed[:, :lo], targets[:, :lo])
    return filled, ~filled.isnan()


def guessed_labels(
    p: Tensor, threshold: float, soft: bool = False, prior: Tensor | None = None, confident: bool = False
) -> Tensor:
    """What probabilities p [n, k] become as labels: 1 above `threshold`, else 0, or themselves (`soft`); with a `prior` [k]
    no more positives than `within_quota` allows; `only_confident` ones if asked for."""
    values = p if soft else (p > threshold).float()
    if prior is not None:
        values = within_quota(values, p, prior)
    return only_confident(values, p, threshold) if confident else values


def within_quota(values: Tensor, p: Tensor, prior: Tensor) -> Tensor:
    """Labels [n, k] of which at most ceil(prior * n) a class are positive: the most probable ones; the rest become 0."""
    allowed = (prior * len(p)).ceil().long()
    rank = p.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    return torch.where((values >= 0.5) & (rank >= allowed), 0.0, values)


def only_confident(values: Tensor, p: Tensor, threshold: float) -> Tensor:
    """Labels [n, k], hidden (NaN) where the probability lies between 1 - threshold and threshold."""
    high = max(threshold, 1 - threshold)
    return torch.where((p > high) | (p < 1 - high), values, float("nan"))
