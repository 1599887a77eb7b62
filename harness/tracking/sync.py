"""`imbcil-bench sync`: bring MLflow up to what the store's run folders say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.figures.of_run import draw_run_figures
from imbcil.harness.store.layout import Store, is_owned
from imbcil.harness.store.run_folder import Status
from imbcil.harness.store.sweep_record import sweep_records
from imbcil.harness.tracking.client import Connection, connect, explain, patient_and_quiet
from imbcil.harness.tracking.delivery import Delivery, deliver_run
from imbcil.harness.tracking.experiments import experiments_of, repair_addresses
from imbcil.harness.tracking.parents import publish_means
from imbcil.harness.tracking.settings import TrackingSettings
from imbcil.harness.tracking.sweeps import publish_sweep
from imbcil.harness.tracking.tracker import readable_truths
from imbcil.harness.tracking.truth import Truth, group_of


@dataclass(frozen=True)
class SyncReport:
    """What a sync found and sent."""

    runs: int = 0  # readable run folders
    created: int = 0  # runs that MLflow did not know
    phases: int = 0
    files: int = 0
    changed: int = 0  # runs that anything was sent for
    means: int = 0  # parents whose means were logged
    killed: int = 0  # runs shown as running that no process trains any more
    unreadable: int = 0

    def __str__(self) -> str:
        if not (self.changed or self.means or self.killed):
            text = f"{_count(self.runs, 'run')}, nothing to deliver"
        else:
            text = (
                f"{_count(self.runs, 'run')}, {self.changed} delivered ({self.created} new, "
                f"{_count(self.phases, 'phase')}, {_count(self.files, 'file')}), {_count(self.means, 'mean')} over "
                f"seeds, {self.killed} marked as killed"
            )
        return f"{text}; {self.unreadable} unreadable." if self.unreadable else f"{text}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sync_store(store: Store, settings: TrackingSettings, warn: Callable[[str], None]) -> SyncReport:
    """Deliver every run of the store; a second call changes nothing.

    Raises RunStopped when MLflow does not answer or refuses: what was sent stays, the next call goes on.
    """
    if settings.uri is None:
        raise BadInput("There is nothing to deliver to: tracking is off.")
    skipped: list[str] = []
    truths = readable_truths(store, skipped.append)
    for sentence in skipped:
        warn(sentence)
    try:
        with patient_and_quiet(settings.remote):
            connection = connect(store, settings)
            repair_addresses(connection)
            sent, killed = _deliver_all(connection, truths)
            means = _publish_all(connection, truths)
            for record in sweep_records(store):
                publish_sweep(connection, record, truths)
            killed += _mark_lost(connection, truths)
    except Exception as error:  # MLflow raises whatever its parts raise
        reason = explain(error, settings)
        raise RunStopped(f"{reason} Nothing is lost: run `imbcil-bench sync` again.") from error
    return SyncReport(
        runs=len(truths),
        created=sum(each.created for each in sent),
        phases=sum(each.phases for each in sent),
        files=sum(each.files for each in sent),
        changed=sum(bool(each) for each in sent),
        means=means,
        killed=killed,
        unreadable=len(skipped),
    )


def live_status(truth: Truth) -> Status:
    """The run's status as it is now: running only while a process owns it."""
    status = truth.state.status
    if status == "finished" or status == "failed":
        return status
    return "running" if is_owned(truth.folder) else "interrupted"


def _deliver_all(connection: Connection, truths: Sequence[Truth]) -> tuple[list[Delivery], int]:
    sent, killed = [], 0
    for truth in truths:
        status = live_status(truth)
        if status == "finished" and not (truth.folder.figures / "weight_norms.png").exists():
            draw_run_figures(truth.folder, truth.info)
        delivery = deliver_run(connection, truth, status)
        sent.append(delivery)
        killed += status == "interrupted" and delivery.ended
    return sent, killed


def _publish_all(connection: Connection, truths: Sequence[Truth]) -> int:
    """Means of every group of which nothing is being trained now."""
    groups: dict[str, list[Truth]] = {}
    for truth in truths:
        groups.setdefault(group_of(truth, connection.store_id), []).append(truth)
    complete = [group for group in groups.values() if all(live_status(truth) != "running" for truth in group)]
    return sum(publish_means(connection, group) for group in complete)


def _mark_lost(connection: Connection, truths: Sequence[Truth]) -> int:
    """In the store's own file: runs that MLflow shows as running though their folder is gone."""
    if not connection.settings.embedded:  # a server's other runs are other people's
        return 0
    known = {truth.info.run_key for truth in truths} | {run.path.name for run in connection.store.runs()}
    lost = 0
    for experiment_id in experiments_of(connection).values():
        query = "tags.`imbcil.role` = 'run' and attributes.status = 'RUNNING'"
        for run in connection.client.search_runs([experiment_id], query):
            if run.data.tags.get("imbcil.run_key") not in known:
                connection.client.set_terminated(run.info.run_id, status="KILLED")
                lost += 1
    return lost
