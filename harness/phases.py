"""The learner's view of a phase: new data, memory and counts, nothing else of the scenario."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbcil.harness.batch import Phase
from imbcil.harness.labels import LabelFirewall
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemorySettings, Optimisation
from imbcil.protocols.scenario import Scenario


def phase_view(
    scenario: Scenario, index: int, memory: Pool, privileged: bool, firewall: LabelFirewall | None = None
) -> Phase:
    """Phase `index` as a learner may see it; past data only if it is privileged. With several labels an image,
    `firewall` must be open for this phase."""
    phase = scenario.phases[index]
    new, holdout, past = (
        _pools(scenario, index) if firewall is None else _multi_pools(scenario, index, firewall)
    )
    return Phase(
        index=index,
        lo=phase.lo,
        hi=phase.hi,
        new=new,
        memory=memory,
        holdout=holdout,
        seen_counts=train_counts(scenario)[: phase.hi],
        names=tuple(scenario.class_names[: phase.hi]),
        _past=past if privileged else None,
    )


def _pools(scenario: Scenario, index: int) -> tuple[Pool, Pool, Pool]:
    """(new data, hold-out of all phases so far, past data)."""
    phases = scenario.phases[: index + 1]
    holdout = _joined([_pool(scenario, part.holdout) for part in phases])
    past = _joined([_pool(scenario, earlier.train) for earlier in phases[:-1]])
    return _pool(scenario, phases[-1].train), holdout, past


def _multi_pools(scenario: Scenario, index: int, firewall: LabelFirewall) -> tuple[Pool, Pool, Pool]:
    """(new data, hold-out of this phase, past images that are not among the new ones, each once)."""
    phases = scenario.phases[: index + 1]
    new, held = np.asarray(phases[-1].train), np.asarray(phases[-1].holdout)
    past = np.setdiff1d(np.concatenate([new[:0], *(part.train for part in phases[:-1])]), new)
    closed = past if firewall.privileged else past[:0]
    pools = [firewall.new_pool(torch.from_numpy(rows.astype(np.int64))) for rows in (new, held, closed)]
    return pools[0], pools[1], pools[2]


def open_rows(scenario: Scenario, index: int) -> Tensor:
    """Training and hold-out rows of a phase: the images whose own columns are visible in it."""
    phase = scenario.phases[index]
    return torch.from_numpy(np.concatenate([phase.train, phase.holdout]).astype(np.int64))


def arrival_targets(scenario: Scenario, split: str) -> NDArray[np.uint8]:
    """Labels of a multi-label scenario's split [N, C] in order of arrival: 1, 0, 255 for ignored cells."""
    assert scenario.images is not None
    targets = scenario.images.train_targets if split == "train" else scenario.images.test_targets
    assert targets is not None
    return np.ascontiguousarray(targets[:, list(scenario.order)])


def arrival_labels(scenario: Scenario, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Original labels as arrival ids; labels outside the scenario become -1."""
    table = np.full(max(int(labels.max(initial=0)), len(scenario.arrival_id)) + 1, -1, dtype=np.int64)
    table[: len(scenario.arrival_id)] = scenario.arrival_id
    return table[labels]


def train_counts(scenario: Scenario) -> Tensor:
    """Training images of each class [C] in its own phase, after the hold-out, float32."""
    if scenario.label_kind == "multi":
        targets = arrival_targets(scenario, "train")
        own = [(targets[part.train, part.lo : part.hi] == 1).sum(axis=0) for part in scenario.phases]
        return torch.from_numpy(np.concatenate(own)).float()
    rows = np.concatenate([phase.train for phase in scenario.phases])
    ids = _ids(scenario, rows)
    return torch.bincount(ids, minlength=len(scenario.order)).float()


def phase_steps(scenario: Scenario, train: Optimisation, memory: MemorySettings) -> list[int]:
    """Steps of each phase of plain replay: what the decision to compile and the time left go by."""
    counts = train_counts(scenario)
    per_class = memory.per_class or (memory.total or 0) // max(len(scenario.order), 1)
    kept = [int(counts[: phase.lo].clamp(max=per_class).sum()) for phase in scenario.phases]
    first = train.in_first_phase() if len(scenario.phases) > 1 else train
    epochs = [first.epochs] + [train.epochs] * (len(scenario.phases) - 1)
    return [
        -(-(len(phase.train) + old) // train.batch) * times
        for phase, old, times in zip(scenario.phases, kept, epochs, strict=True)
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
