"""Run folders as the engine leaves them, made in a moment: numbers are a formula, so that tests can foretell them."""

import struct
import zlib
from pathlib import Path

from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder
from imbcil.harness.store.run_info import PhaseInfo, RunInfo

START_MS = 1_700_000_000_000
PHASES = 3
PER_PHASE = 2


def accuracy(seed: int, phase: int) -> float:
    """`phase/acc_total` of a made-up run."""
    return 80.0 - 7.0 * phase + 0.1 * seed


def make_info(seed: int = 0, method: str = "icarl", **changes: object) -> RunInfo:
    phases = tuple(
        PhaseInfo(
            lo=PER_PHASE * t,
            hi=PER_PHASE * (t + 1),
            classes=(2 * t, 2 * t + 1),
            train_before_holdout=50,
            train=45,
            test=20,
        )
        for t in range(PHASES)
    )
    n_classes = PER_PHASE * PHASES
    fields = {
        "run_key": f"{zlib.crc32(f'{method} {seed}'.encode()):016x}",
        "version": "0.1.0",
        "method": method,
        "learner": method.split("+")[0],
        "plugins": tuple(method.split("+")[1:]),
        "seed": seed,
        "protocol": "lfs",
        "column": "lfs-3",
        "dataset": "glyphs6-lt",
        "order": "shuffled",
        "imbalance": "exp rho 100",
        "recipe": "quick",
        "preset": "sound",
        "memory": "20/class",
        "precision": "fp32",
        "device": "cpu",
        "compiled": False,
        "digest": "3f9a1c22d0ab" + "0" * 52,
        "family": "family-a",
        "class_names": tuple(f"class {c}" for c in range(n_classes)),
        "raw_counts": tuple(range(10 * n_classes, 0, -10)),
        "phases": phases,
        "predictors": ("nme", "fc"),
        "settings": {"icarl.temperature": 2.0},
        "command": f"imbcil-bench run --protocol lfs --n-tasks 3 --method {method} --seed {seed}",
        "created_ms": START_MS + seed,
        **changes,
    }
    return RunInfo.model_validate(fields)


def start_run(
    store: Store, seed: int = 0, method: str = "icarl", config: str = "", **changes: object
) -> RunFolder:
    """A run that has just begun: no phase is finished."""
    info = make_info(seed, method, **changes)
    run = store.run(info.run_key)
    run.create(info, config or f"protocol: lfs\nmethod: [{method}]\nseeds: [{seed}]\nset:\n  train.lr: 0.1\n")
    (run.path / "scenario.json").write_text('{"name": "lfs", "phases": []}')
    run.set_state("running")
    return run


def add_phase(run: RunFolder, phase: int, **metrics: float) -> None:
    """What the engine writes at the end of a phase."""
    seed = run.info().seed
    values = {
        "phase/acc_total": accuracy(seed, phase),
        "phase/acc_task_mean": accuracy(seed, phase) - 1,
        "phase/fc/acc_total": accuracy(seed, phase) - 2,
        "cost/train_s": 3.25 + seed,
        **metrics,
    }
    if phase:
        values["phase/forgetting"] = 4.0 * phase
    run.append_record(
        PhaseRecord(phase=phase, time_ms=START_MS + 60_000 * (phase + 1) + seed, metrics=values)
    )
    (run.path / "per_class.csv").write_text(
        f"phase,class_id,accuracy\n{phase},0,{values['phase/acc_total']}\n"
    )
    (run.path / "accuracy_matrix.csv").write_text(f"phase,0\n{phase},{values['phase/acc_total']}\n")
    (run.figures / "accuracy_matrix.png").write_bytes(tiny_png(phase))


def finish_run(store: Store, seed: int = 0, method: str = "icarl", **changes: object) -> RunFolder:
    """A whole finished run."""
    run = start_run(store, seed, method, **changes)
    for phase in range(PHASES):
        add_phase(run, phase)
    end_run(run)
    return run


def end_run(run: RunFolder) -> None:
    """The state that the engine writes at the end."""
    seed = run.info().seed
    average = sum(accuracy(seed, phase) for phase in range(PHASES)) / PHASES
    last = accuracy(seed, PHASES - 1)
    run.set_state("finished", final={"final/avg_acc_total": average, "final/last_acc_total": last})


def tiny_png(shade: int) -> bytes:
    """A valid 1x1 grey image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes([0, 10 * shade])))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def new_store(root: Path) -> Store:
    store = Store(root)
    store.prepare()
    return store
