"""The runs of a store as tables need them: finished ones with their final numbers, the others by their state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from imbcil.harness.base.errors import ImbcilError
from imbcil.harness.metrics import final_metrics
from imbcil.harness.store.layout import Store, is_owned
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.store.run_info import RunInfo

Progress = Literal["finished", "running", "stopped", "failed"]


@dataclass(frozen=True)
class StoredRun:
    """One run folder as it was found."""

    info: RunInfo
    state: Progress
    reason: str  # why it failed or stopped
    phases: tuple[Mapping[str, float], ...]  # the metrics of each finished phase
    final: Mapping[str, float]  # `final/*`, derived from `phases`; empty unless finished
    overrides: Mapping[str, object]  # what was changed against recipe and preset, by path
    origin: str = ""  # empty: this store; else who measured it, as tables say it

    @property
    def base_key(self) -> str:
        """The run key without the mark of a later attempt."""
        return self.info.run_key.removesuffix(f"-{self.info.attempt}")


@dataclass(frozen=True)
class Collection:
    """What a store holds; `warnings` has one sentence for each folder that could not be read."""

    finished: tuple[StoredRun, ...] = ()  # the newest finished attempt of each run key
    unfinished: tuple[StoredRun, ...] = ()  # those that no finished attempt has replaced
    warnings: tuple[str, ...] = ()


def read_runs(store: Store, run_keys: Iterable[str] | None = None) -> tuple[list[StoredRun], list[str]]:
    """Every readable run of the store (or those of `run_keys`), and a sentence for each damaged one."""
    wanted = None if run_keys is None else set(run_keys)
    runs, warnings = [], []
    for folder in store.runs():
        if wanted is not None and folder.path.name not in wanted:
            continue
        try:
            runs.append(read_run(folder))
        except (ImbcilError, OSError, ValueError) as error:
            said = " ".join(str(error).split()).rstrip(".")
            warnings.append(f"The run {folder.path.name} is left out: {said}.")
    return runs, warnings


def collect(store: Store, run_keys: Iterable[str] | None = None) -> Collection:
    """Finished and unfinished runs; of several attempts at one run key the newest finished one counts."""
    runs, warnings = read_runs(store, run_keys)
    newest: dict[str, StoredRun] = {}
    for run in runs:
        if run.state == "finished":
            other = newest.get(run.base_key)
            if other is None or other.info.attempt < run.info.attempt:
                newest[run.base_key] = run
    unfinished = [
        run
        for run in runs
        if run.state != "finished"
        and (run.base_key not in newest or newest[run.base_key].info.attempt < run.info.attempt)
    ]
    return Collection(tuple(newest.values()), tuple(unfinished), tuple(warnings))


def read_run(folder: RunFolder) -> StoredRun:
    """One run folder. Raises BadInput when a file is damaged or when its files contradict each other."""
    info, state = folder.info(), folder.state()
    phases = tuple(record.metrics for record in folder.records())
    progress: Progress = "stopped"
    if state.status in ("finished", "failed"):
        progress = "finished" if state.status == "finished" else "failed"
    elif state.status == "running" and _has_living_owner(folder):
        progress = "running"
    if progress == "finished" and len(phases) != len(info.phases):
        raise ValueError(
            f"{folder.path} is damaged: it says finished but has {len(phases)} of {len(info.phases)} phases; "
            "run the same command with --force"
        )
    final = final_metrics(phases) if progress == "finished" else {}
    overrides: Mapping[str, object] = getattr(info, "overrides", {})
    return StoredRun(info, progress, state.reason, phases, final, overrides)


def _has_living_owner(folder: RunFolder) -> bool:
    return (folder.path / "owner.lock").exists() and is_owned(folder)
