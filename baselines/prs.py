"""PRS: partitioning reservoir sampling, a memory whose labels follow target shares (Kim et al., ECCV 2020)."""

import numpy as np
import torch
from numpy.typing import NDArray

from imbcil.harness.contract import Learner, MixedConfig, Needs, Phase, Stage
from imbcil.harness.offering import accept, offer
from imbcil.harness.stages import mixed_stage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class PRSConfig(MixedConfig):
    """`power`: q of the target shares n^q / sum n^q (-0.03 on COCOseq)."""

    power: float = -0.03


class PRS(Learner):
    """Predictor: "fc". Replay with binary cross-entropy over visible cells; an image is offered to the memory once a
    phase, at its end and in random order, however many epochs there were.

    Label policy mask_current, memory capture_only (the original stores the full label vector: `labels.memory =
    oracle_full`). Each positive label is a sub-stream; admission and eviction as in the released code, but that shares and
    distances are over all labels offered so far (there: over those that the memory holds).
    """

    title = "PRS"
    version = 2  # spares rows with protected labels; counts an image after it was judged
    Config = PRSConfig
    needs = Needs(labels=frozenset({"multi"}), sampler="own")
    cfg: PRSConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [mixed_stage(phase, self.cfg.train, 1, self.cfg.ratio)]

    def end_phase(self, phase: Phase) -> None:
        made = offer(self, phase)
        count = len(made.labels) - made.held
        draws = torch.rand(count, 2, generator=made.generator, dtype=torch.float64).numpy()
        seen = made.seen.copy()
        rows = partitioned(made.labels, made.held, made.room, seen, draws, self.cfg.power)
        accept(self, phase, made, rows, seen)


def partitioned(labels: Flags, held: int, room: int, seen: Floats, draws: Floats, power: float) -> list[int]:
    """Rows of `labels` [N, K] that a memory of `room` rows holds after the rows behind the first `held` were offered.

    `seen` [K] counts positives offered so far and is brought up to date, with each row after it was judged; `draws`
    [N - held, 2] uniform numbers.
    """
    rows = list(range(held))[:room]
    filled = labels[rows].sum(axis=0).astype(float)
    for row, (admission, eviction) in zip(range(held, len(labels)), draws, strict=True):
        mine = labels[row]
        if len(rows) < room:
            rows.append(row)
            filled += mine
        elif room and mine.any():
            share = target_shares(seen, power)
            if admission < admitted(seen[mine], room * share[mine]):
                place = evicted(labels[rows], filled, share, eviction)
                filled += mine.astype(float) - labels[rows[place]]
                rows[place] = row
        seen += mine
    return rows


def target_shares(seen: Floats, power: float) -> Floats:
    """Shares [K] proportional to seen^power, zero for labels that were not seen."""
    raised = np.where(seen > 0, np.maximum(seen, 1.0) ** power, 0.0)
    shares: Floats = raised / max(raised.sum(), 1e-12)
    return shares


def admitted(seen: Floats, target: Floats) -> float:
    """Probability of admission: sum over the sample's labels of softmax(-n) min(1, m / n), 1 for a label that is new."""
    weight = np.exp(seen.min() - seen)
    within = np.where(seen > target, target / np.maximum(seen, 1.0), 1.0)
    return float((weight / weight.sum() * within).sum())


def evicted(labels: Flags, filled: Floats, share: Floats, draw: float) -> int:
    """Place of the row that leaves: of a class drawn by softmax of its excess, among the rows with fewest protected labels
    (those not in excess), the one that leaves the smallest distance from the target shares."""
    excess = filled - share * filled.sum()
    present = filled > 0
    weight = np.where(present, np.exp(excess - excess[present].max()), 0.0)
    label = min(int(np.searchsorted(np.cumsum(weight), draw * weight.sum(), side="right")), len(weight) - 1)
    own = np.flatnonzero(labels[:, label])
    protected = labels[own][:, excess <= 0].sum(axis=1)
    own = own[protected == protected.min()]
    after = filled - labels[own]
    return int(own[np.abs(after - share * after.sum(axis=1, keepdims=True)).sum(axis=1).argmin()])
