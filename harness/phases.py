"""The learner's view of a phase: new data, memory and counts, nothing else of the scenario."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbcil.harness.batch import Phase
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemorySettings
from imbcil.protocols.scenario import Scenario


def phase_view(scenario: Scenario, index: int, memory: Pool, privileged: bool) -> Phase:
    """Phase `index` as a learner may see it; past data only if it is privileged."""
    phase = scenario.phases[index]
    past = [_pool(scenario, earlier.train) for earlier in scenario.phases[:index]]
    return Phase(
        index=index,
        lo=phase.lo,
        hi=phase.hi,
        new=_pool(scenario, phase.train),
        memory=memory,
        holdout=_joined([_pool(scenario, part.holdout) for part in scenario.phases[: index + 1]]),
        seen_counts=train_counts(scenario)[: phase.hi],
        _past=_joined(past) if privileged else None,
    )


def arrival_labels(scenario: Scenario, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Original labels as arrival ids; labels outside the scenario become -1."""
    table = np.full(max(int(labels.max(initial=0)), len(scenario.arrival_id)) + 1, -1, dtype=np.int64)
    table[: len(scenario.arrival_id)] = scenario.arrival_id
    return table[labels]


def train_counts(scenario: Scenario) -> Tensor:
    """Training images of each class [C] in its own phase, after the hold-out, float32."""
    rows = np.concatenate([phase.train for phase in scenario.phases])
    ids = _ids(scenario, rows)
    return torch.bincount(ids, minlength=len(scenario.order)).float()


def phase_steps(scenario: Scenario, epochs: int, batch: int, memory: MemorySettings) -> list[int]:
    """Steps of each phase of plain replay: what the decision to compile and the time left go by."""
    counts = train_counts(scenario)
    per_class = memory.per_class or (memory.total or 0) // max(len(scenario.order), 1)
    kept = [int(counts[: phase.lo].clamp(max=per_class).sum()) for phase in scenario.phases]
    return [
        -(-(len(phase.train) + old) // batch) * epochs
        for phase, old in zip(scenario.phases, kept, strict=True)
    ]


def _ids(scenario: Scenario, rows: NDArray[np.int64]) -> Tensor:
    assert scenario.images is not None
    return torch.from_numpy(arrival_labels(scenario, scenario.images.train_labels[rows]))


def _pool(scenario: Scenario, rows: NDArray[np.int64]) -> Pool:
    return Pool.of_new(torch.from_numpy(np.asarray(rows, dtype=np.int64)), _ids(scenario, rows))


def _joined(pools: list[Pool]) -> Pool:
    result = Pool.empty()
    for pool in pools:
        result = result + pool
    return result
