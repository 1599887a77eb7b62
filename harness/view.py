"""What a run tells whoever watches it. The command line draws it; tests and libraries may stay silent."""

from dataclasses import dataclass, field
from typing import Protocol

from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo


@dataclass(frozen=True)
class EpochProgress:
    """Where a run is after an epoch. `terms`: mean loss terms of the epoch; rates in images per second;
    times in seconds; `steps_left` of `steps_total` count over the whole run."""

    run: str
    phase: int
    phases: int
    stage: str
    epoch: int  # 1-based, just finished
    epochs: int
    terms: dict[str, float] = field(default_factory=dict)
    images_per_s: float = 0.0
    seconds_left: float | None = None
    fraction: float = 0.0  # of the whole run
    run_key: str = ""


@dataclass(frozen=True)
class SweepProgress:
    """Where a sweep is. A cell counts as finished or failed once all its runs have ended; `running`: run keys."""

    cells: int
    finished: int
    failed: int
    running: tuple[str, ...] = ()
    seconds_left: float | None = None


class RunView(Protocol):
    """All methods return at once and never raise."""

    def message(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def run_started(self, info: RunInfo, resumed_at: str) -> None: ...

    def epoch(self, progress: EpochProgress) -> None: ...

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None: ...

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None: ...


class SweepView(RunView, Protocol):
    """Watches several runs, perhaps at once."""

    def sweep(self, progress: SweepProgress) -> None: ...


class SilentView:
    """Watches without a word."""

    def message(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def run_started(self, info: RunInfo, resumed_at: str) -> None: ...

    def epoch(self, progress: EpochProgress) -> None: ...

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None: ...

    def run_finished(self, info: RunInfo, final: dict[str, float]) -> None: ...

    def sweep(self, progress: SweepProgress) -> None: ...
