"""Memories that are offered each image of a phase once (PRS, OCDM): candidates, their labels, and running counts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from imbcil.harness.batch import Phase
from imbcil.harness.contract import Learner
from imbcil.harness.pools import Pool


@dataclass(frozen=True)
class Offer:
    """`pool`: the memory's rows, then the phase's new images in random order; `held`: how many are the memory's;
    `labels` [N, K] bool, visible positives; `seen` [K], positives offered in earlier phases; `room`: rows to keep."""

    pool: Pool
    held: int
    labels: NDArray[np.bool_]
    seen: NDArray[np.float64]
    room: int
    generator: torch.Generator


def offer(learner: Learner, phase: Phase) -> Offer:
    """What stands before the memory at the end of a phase."""
    generator = learner.tools.gen("exemplars", phase.index)
    order = torch.randperm(len(phase.new), generator=generator)
    pool = learner.memory.pool() + phase.new[order]
    assert pool.positives is not None
    labels = pool.positives.numpy()
    seen = np.zeros(phase.hi)
    if phase.lo:
        seen[: phase.lo] = learner.state["seen"].numpy()
    wide = np.pad(labels, ((0, 0), (0, phase.hi - labels.shape[1])))
    return Offer(pool, len(learner.memory), wide, seen, learner.memory.room(phase.hi), generator)


def accept(learner: Learner, phase: Phase, made: Offer, rows: list[int], seen: NDArray[np.float64]) -> None:
    """Keep `rows` of the offer in the memory and the counts in `state["seen"]`."""
    learner.memory.take(made.pool[torch.tensor(sorted(rows), dtype=torch.int64)], phase.index)
    learner.state["seen"] = torch.from_numpy(seen.copy())
