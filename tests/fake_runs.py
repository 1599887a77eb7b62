"""Run folders made by hand: what the engine would leave behind, with numbers chosen by the test."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from imbcil.harness.store.layout import Store, attempt_key
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder
from imbcil.harness.store.run_info import PhaseInfo, RunInfo

PHASES = 2


def make_store(root: Path) -> Store:
    store = Store(root)
    store.prepare()
    return store


def add_run(
    store: Store,
    method: str = "icarl",
    accuracy: float | Sequence[float] = 50.0,
    *,
    status: str = "finished",
    reason: str = "",
    done: int | None = None,
    metrics: Sequence[Mapping[str, float]] | None = None,
    **fields: object,
) -> RunFolder:
    """A run whose phases all have `accuracy` (acc_total is one point above acc_task_mean)."""
    accuracies = [accuracy] * PHASES if isinstance(accuracy, int | float) else list(accuracy)
    records = metrics or [{"phase/acc_task_mean": a, "phase/acc_total": a + 1} for a in accuracies]
    info = run_info(store, method, len(records), **fields)
    folder = store.run(info.run_key)
    folder.create(info, "recipe: paper\n")
    for phase, found in enumerate(records[:done]):
        folder.append_record(PhaseRecord(phase=phase, time_ms=1000 + phase, metrics=dict(found)))
    folder.set_state(status, reason)
    return folder


def run_info(store: Store, method: str, n_phases: int, **fields: object) -> RunInfo:
    """A plausible RunInfo; any field may be given."""
    learner, *plugins = method.split("+")
    given: dict[str, object] = {
        "version": "0.1.0",
        "method": method,
        "learner": learner,
        "plugins": tuple(plugins),
        "seed": 0,
        "protocol": "lfs",
        "column": "lfs-10",
        "dataset": "cifar100-lt",
        "order": "shuffled",
        "imbalance": "exp rho 100",
        "recipe": "paper",
        "preset": "released",
        "memory": "20/class",
        "precision": "bf16",
        "device": "cpu",
        "compiled": False,
        "class_names": tuple(f"class {c}" for c in range(n_phases)),
        "raw_counts": tuple([50] * n_phases),
        "phases": tuple(
            PhaseInfo(lo=p, hi=p + 1, classes=(p,), train_before_holdout=50, train=45, test=10)
            for p in range(n_phases)
        ),
        **fields,
    }
    scenario = f"{given['column']} {given['dataset']} {given['order']} {given['imbalance']}"
    given.setdefault("family", hashlib.sha256(scenario.encode()).hexdigest()[:16])
    given.setdefault("digest", given["family"])
    if "run_key" not in given:
        count = len(list((store.root / "runs").glob("*"))) + 1
        given["run_key"] = attempt_key(f"{count:016x}", int(str(given.get("attempt", 1))))
    given.setdefault("created_ms", int(str(given["run_key"])[:16], 16))
    return RunInfo.model_validate(given)
