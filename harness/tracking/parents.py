"""The parent run of a group of seeds: it carries their means, once the set of seeds is complete."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imbcil.harness.tracking.client import Connection
from imbcil.harness.tracking.describe import (
    LONGEST_TAG,
    escape,
    finite,
    parent_name,
    phase_table,
    run_params,
    shared_tags,
    shown_command,
)
from imbcil.harness.tracking.experiments import ensure_experiment
from imbcil.harness.tracking.statistics import not_shared, seed_statistics
from imbcil.harness.tracking.truth import Truth, group_of, newest_finished

if TYPE_CHECKING:
    from mlflow.entities import Run

_OF_ONE_RUN = ("seed", "attempt", "device", "torch_version")


def ensure_parent(connection: Connection, experiment_id: str, truth: Truth, group: str) -> str:
    """The id of the group's parent run, created with its first child. Call under the lock."""
    parents = _parents(connection, experiment_id, group)
    return str((parents[0] if parents else _create(connection, experiment_id, truth, group)).info.run_id)


def publish_means(connection: Connection, truths: Sequence[Truth]) -> bool:
    """Log the means over one group's finished seeds; True if they were not there yet.

    Points in MLflow cannot be replaced: when the set of seeds has changed since, a new parent takes the
    children over and the old one is deleted.
    """
    members = newest_finished(truths)
    if not members:
        return _close_failed(connection, truths)
    first = members[0]
    with connection.lock():
        experiment_id = ensure_experiment(connection, first.info)
        group = group_of(first, connection.store_id)
        parents = _parents(connection, experiment_id, group)
        mark = _members_mark(members)
        parent = next((run for run in parents if run.data.tags.get("imbcil.members") == mark), None)
        done = parent is not None and parent.info.status == "FINISHED"
        if parent is None:
            pending = [run for run in parents if "imbcil.members" not in run.data.tags]
            parent = pending[0] if pending else _create(connection, experiment_id, first, group)
            connection.client.set_tag(parent.info.run_id, "imbcil.members", mark)
        if not done:
            _log_means(connection, parent.info.run_id, members)
        _adopt(connection, experiment_id, group, parent.info.run_id)
        for other in parents:
            if other.info.run_id != parent.info.run_id:
                connection.client.delete_run(other.info.run_id)
    return not done


def _close_failed(connection: Connection, truths: Sequence[Truth]) -> bool:
    """End the parent of a group whose seeds have all failed; True if it was open. One that finishes later reopens it."""
    if not truths or any(truth.state.status != "failed" for truth in truths):
        return False
    with connection.lock():
        experiment_id = ensure_experiment(connection, truths[0].info)
        parents = _parents(connection, experiment_id, group_of(truths[0], connection.store_id))
        waiting = [run for run in parents if run.info.status == "RUNNING"]
        end = max(truth.last_ms for truth in truths)
        for run in waiting:
            connection.client.set_terminated(run.info.run_id, status="FAILED", end_time=end or None)
    return bool(waiting)


def _parents(connection: Connection, experiment_id: str, group: str) -> list["Run"]:
    found = connection.client.search_runs(
        [experiment_id],
        f"tags.`imbcil.group` = '{group}' and tags.`imbcil.role` = 'mean'",
        order_by=["attributes.start_time DESC"],
    )
    return list(found)


def _create(connection: Connection, experiment_id: str, truth: Truth, group: str) -> "Run":
    from mlflow.entities import Param

    tags = shared_tags(truth.info, group) | {"imbcil.role": "mean", "imbcil.seeds": ""}
    name = parent_name(truth.info, 0)
    start = truth.info.created_ms or truth.last_ms or None
    run = connection.client.create_run(experiment_id, start_time=start, run_name=name, tags=tags)
    params = [Param(key, value) for key, value in run_params(truth).items() if key not in _OF_ONE_RUN]
    connection.client.log_batch(run.info.run_id, params=params)
    return run


def _members_mark(members: Sequence[Truth]) -> str:
    """Changes with the set of runs and with what was measured in them."""
    text = "\n".join(f"{truth.info.run_key} {truth.last_ms}" for truth in members)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _log_means(connection: Connection, run_id: str, members: Sequence[Truth]) -> None:
    """Everything that a complete parent shows; the same members give the same points, so again is fine."""
    from mlflow.entities import Metric, RunTag

    client, last_ms = connection.client, max(truth.last_ms for truth in members)
    table = []
    for records in zip(*(truth.records for truth in members), strict=False):
        means = seed_statistics([finite(record.metrics) for record in records])
        time_ms = max(record.time_ms for record in records)
        phase = records[0].phase
        table.append((phase, means))
        client.log_batch(run_id, metrics=[Metric(key, value, time_ms, phase) for key, value in means.items()])
    final = seed_statistics([finite(truth.state.final) for truth in members]) | {
        "seeds/n": float(len(members))
    }
    client.log_batch(run_id, metrics=[Metric(key, value, last_ms, 0) for key, value in final.items()])
    seeds = ",".join(str(truth.info.seed) for truth in members)
    tags = {"imbcil.seeds": seeds, "mlflow.note.content": _description(members, table)}
    if partial := _partial(members):
        tags["imbcil.dropped"] = f"not measured for every seed: {', '.join(partial)}"[:LONGEST_TAG]
    client.log_batch(run_id, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])
    client.update_run(run_id, name=parent_name(members[0].info, len(members)))
    client.set_terminated(run_id, status="FINISHED", end_time=last_ms or None)


def _partial(members: Sequence[Truth]) -> list[str]:
    phases = zip(*(truth.records for truth in members), strict=False)
    names = {key for records in phases for key in not_shared([record.metrics for record in records])}
    return sorted(names | set(not_shared([truth.state.final for truth in members])))


def _description(members: Sequence[Truth], table: list[tuple[int, dict[str, float]]]) -> str:
    info = members[0].info
    seeds = ", ".join(str(truth.info.seed) for truth in members)
    lines = [
        f"**{escape(parent_name(info, len(members)))}** · seeds {seeds} (varied: {', '.join(info.vary)}) · "
        f"{escape(info.column)} on {escape(info.dataset)} · recipe {info.recipe} · preset {info.preset} · "
        f"memory {escape(info.memory)} · digest {info.digest[:12]}",
        "",
        *phase_table(table, [phase.hi for phase in info.phases])[:60],
        "",
        f"Means over seeds. First run: {shown_command(info)}",
    ]
    return "\n".join(lines)


def _adopt(connection: Connection, experiment_id: str, group: str, parent_id: str) -> None:
    query = f"tags.`imbcil.group` = '{group}' and tags.`imbcil.role` = 'run'"
    for run in connection.client.search_runs([experiment_id], query):
        if run.data.tags.get("mlflow.parentRunId") != parent_id:
            connection.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent_id)
