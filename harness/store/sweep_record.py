"""`<store>/sweeps/<key>.json`: which runs a sweep consists of, so that trackers can show it as one."""

import hashlib
from collections.abc import Sequence

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.files import atomic_write
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import now_ms, read_json


class RecordedCell(Frozen):
    """One learner in one column."""

    name: str  # the learner, with the settings in which its row differs
    column: str  # "lfs-10 cifar100-lt"
    runs: tuple[str, ...]  # run keys, one a seed


class SweepRecord(Frozen):
    """One sweep: the same suite with the same flags is the same sweep, however often it is started."""

    schema_version: int = 1
    key: str  # 16 hex digits over name and run keys
    name: str  # of the suite
    created_ms: int
    cells: tuple[RecordedCell, ...]

    @property
    def run_keys(self) -> tuple[str, ...]:
        return tuple(run for cell in self.cells for run in cell.runs)


def record_sweep(store: Store, name: str, cells: Sequence[RecordedCell]) -> SweepRecord:
    """Write the record where it is not there yet. Raises RunStopped when the disk refuses."""
    text = "\n".join([name, *(run for cell in cells for run in cell.runs)])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = store.root / "sweeps" / f"{key}.json"
    if path.exists():
        return validated(SweepRecord, read_json(path), str(path))
    record = SweepRecord(key=key, name=name, created_ms=now_ms(), cells=tuple(cells))
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, record.model_dump_json(indent=1) + "\n")
    return record


def sweep_records(store: Store) -> list[SweepRecord]:
    """Every readable record of the store, oldest first; a damaged one is passed over (its runs show themselves)."""
    found = []
    for path in sorted((store.root / "sweeps").glob("*.json")):
        try:
            found.append(validated(SweepRecord, read_json(path), str(path)))
        except BadInput:
            continue
    return sorted(found, key=lambda record: record.created_ms)
