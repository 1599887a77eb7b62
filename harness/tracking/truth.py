"""What a run folder says, read once per delivery."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.yaml_files import read_yaml
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder, RunState
from imbcil.harness.store.run_info import RunInfo

# Top-level config keys that say where, when or for which seed a run went, not what it trained.
OPERATIONAL = frozenset(
    (
        *("seed", "seeds", "method", "methods", "store", "tracking_uri", "no_tracking", "jobs", "threads"),
        *("device", "checkpoint_every", "force", "dry_run", "json", "config", "data_root"),
    )
)


@dataclass(frozen=True)
class Truth:
    """A run folder's files in memory; the source of everything that MLflow shows of the run."""

    folder: RunFolder
    info: RunInfo
    state: RunState
    records: tuple[PhaseRecord, ...]
    config: Mapping[str, Any]

    @property
    def last_ms(self) -> int:
        """When the last finished phase was recorded; the start where none is."""
        return self.records[-1].time_ms if self.records else self.info.created_ms


def read_truth(folder: RunFolder) -> Truth:
    """Read a run's files. Raises BadInput naming the file that is damaged; a missing config is empty."""
    try:
        config = read_yaml(folder.config_path)
    except BadInput:
        config = {}
    return Truth(folder, folder.info(), folder.state(), tuple(folder.records()), config)


def experiment_name(info: RunInfo) -> str:
    """`lfh-5 cifar100-lt`; a slash would hide what stands before it."""
    return f"{info.column} {info.dataset}".replace("/", "-")[:500]


def group_of(truth: Truth, store_id: str) -> str:
    """16 hex digits that runs share which differ in their seed alone: their mean is one row of a table."""
    info = truth.info
    identity = {
        **info.model_dump(
            mode="json",
            include={"method", "column", "dataset", "recipe", "preset", "memory", "family", "precision"}
            | {"order", "imbalance", "settings", "vary"},
        ),
        "config": {key: value for key, value in truth.config.items() if key not in OPERATIONAL},
        "store": store_id,
    }
    if info.code:  # seeds of two versions have no mean in common
        identity["code"] = info.code
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


def newest_finished(truths: Sequence[Truth]) -> list[Truth]:
    """One finished run per seed, the newest attempt of each, by seed."""
    chosen: dict[int, Truth] = {}
    for truth in sorted(truths, key=lambda each: (each.info.attempt, each.info.created_ms)):
        if truth.state.status == "finished" and truth.records:
            chosen[truth.info.seed] = truth
    return [chosen[seed] for seed in sorted(chosen)]
