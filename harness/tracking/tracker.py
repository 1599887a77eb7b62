"""What the engine calls: tell MLflow, and never let MLflow stop or hold up training."""

import threading
from collections.abc import Callable, Sequence

from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder, Status
from imbcil.harness.store.sweep_record import SweepRecord
from imbcil.harness.tracking.client import Connection, connect, explain, patient_and_quiet
from imbcil.harness.tracking.delivery import deliver_run
from imbcil.harness.tracking.experiments import repair_addresses
from imbcil.harness.tracking.parents import publish_means
from imbcil.harness.tracking.settings import TrackingSettings
from imbcil.harness.tracking.sweeps import publish_sweep
from imbcil.harness.tracking.truth import Truth, group_of, read_truth

PHASE_SECONDS = 4.0  # the longest that a server may hold up a phase
LAST_SECONDS = 15.0  # the same at the end of everything, where no training waits


class TooSlow(Exception):
    """The server has not answered in the time that training can spare."""


class Tracker:
    """Shows runs in MLflow. No method raises; what could not be told is told by the next call or by `sync`."""

    def __init__(self, settings: TrackingSettings, store: Store, warn: Callable[[str], None]) -> None:
        self.settings = settings
        self.store = store
        self._warn = warn
        self._warned = False
        self._worker: threading.Thread | None = None
        self._connection: Connection | None = None

    def deliver(self, run: RunFolder, status: Status) -> bool:
        """Log whatever MLflow does not have yet from the folder's files: after the start, each phase, the end.

        True if MLflow now has everything (or tracking is off). A server is waited for a few seconds at most.
        """

        def job(connection: Connection) -> None:
            deliver_run(connection, read_truth(run), status)

        return self._attempt(job, PHASE_SECONDS)

    def deliver_parent(self, runs: Sequence[RunFolder]) -> bool:
        """Log the means over seeds of the groups that `runs` belong to, once all of `runs` have ended.

        A group counts every finished run in the store, the newest attempt of each seed. True if there is
        nothing left to tell. Runs that never got a folder are passed over.
        """

        def job(connection: Connection) -> None:
            truths = [read_truth(run) for run in runs if (run.path / "run.json").exists()]
            groups = {group_of(truth, connection.store_id) for truth in truths}
            unfinished = {
                group_of(truth, connection.store_id)
                for truth in truths
                if truth.state.status not in ("finished", "failed")
            }
            everything = readable_truths(self.store)
            for group in sorted(groups - unfinished):
                publish_means(
                    connection, [t for t in everything if group_of(t, connection.store_id) == group]
                )

        return self._attempt(job, LAST_SECONDS)

    def deliver_sweep(self, record: SweepRecord, *, running: bool) -> bool:
        """Bring the run that stands for a whole sweep up to date. True if there is nothing left to tell."""

        def job(connection: Connection) -> None:
            publish_sweep(connection, record, readable_truths(self.store), running)

        return self._attempt(job, LAST_SECONDS)

    def _attempt(self, job: Callable[[Connection], None], seconds: float) -> bool:
        if self.settings.uri is None:
            return True
        try:
            if self.settings.remote:
                self._aside(job, seconds)
            else:
                self._now(job)
        except Exception as error:  # MLflow raises whatever its parts raise, and training must go on
            self._say(error)
            return False
        return True

    def _now(self, job: Callable[[Connection], None]) -> None:
        with patient_and_quiet(self.settings.remote):
            job(self._connected())

    def _aside(self, job: Callable[[Connection], None], seconds: float) -> None:
        """Run the job in a thread and wait for it so long; what it does after that is a gain, not a promise."""
        if self._worker is not None and self._worker.is_alive():
            raise TooSlow
        with patient_and_quiet(remote=True):  # import MLflow before the clock runs
            pass
        failures: list[Exception] = []

        def work() -> None:
            try:
                self._now(job)
            except Exception as error:  # handed to the waiting thread
                failures.append(error)

        self._worker = threading.Thread(target=work, name="imbcil-tracking", daemon=True)
        self._worker.start()
        self._worker.join(seconds)
        if self._worker.is_alive():
            raise TooSlow
        if failures:
            raise failures[0]

    def _connected(self) -> Connection:
        """The connection of the last call, unless its database file has been taken away since."""
        database = self.settings.database
        if self._connection is None or (database is not None and not database.exists()):
            self._connection = connect(self.store, self.settings)
            repair_addresses(self._connection)
        return self._connection

    def _say(self, error: Exception) -> None:
        """One warning per process: the second one would say the same."""
        if self._warned:
            return
        self._warned = True
        if isinstance(error, TooSlow):
            reason = f"MLflow at {self.settings.shown} does not answer in time."
        else:
            reason = explain(error, self.settings)
        self._warn(f"{reason} Training goes on; `imbcil-bench sync` delivers what is missing later.")


def readable_truths(store: Store, warn: Callable[[str], None] | None = None) -> list[Truth]:
    """Every run of the store whose files can be read; of others `warn` is told."""
    from imbcil.harness.base.errors import ImbcilError

    truths = []
    for run in store.runs():
        try:
            truths.append(read_truth(run))
        except (ImbcilError, OSError) as error:
            if warn is not None:
                warn(str(error))
    return truths
