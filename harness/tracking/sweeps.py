"""One MLflow run for a whole sweep: its table of cells, its state, and the mark by which its members are found.

It lies in an experiment of its own, `sweeps`. Its members point to it with the tags `imbcil.sweep` (the suite) and
`imbcil.sweep_run` (its id), not with `mlflow.parentRunId`: MLflow would draw it as a closed row in every column's
experiment, with the means that its charts show hidden below.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from imbcil.harness.store.layout import is_owned
from imbcil.harness.store.sweep_record import RecordedCell, SweepRecord
from imbcil.harness.tracking.client import Connection
from imbcil.harness.tracking.describe import LONGEST_TAG, LONGEST_TEXT, escape
from imbcil.harness.tracking.truth import Truth, experiment_name, group_of

if TYPE_CHECKING:
    from mlflow.entities import Run

EXPERIMENT = "sweeps"
_SHOWN = ("final/avg_acc_task_mean", "final/avg_acc_total", "final/avg_map")


def publish_sweep(
    connection: Connection, record: SweepRecord, truths: Sequence[Truth], running: bool | None = None
) -> bool:
    """Bring the sweep's run and the marks on its members up to what the run folders say; True if anything changed.

    running: whether a process works on the sweep; None: if one trains a member.
    """
    members = {truth.info.run_key: truth for truth in truths if truth.info.run_key in record.run_keys}
    if running is None:
        running = any(is_owned(truth.folder) for truth in members.values() if truth.state.status == "running")
    with connection.lock():
        run = _find_or_create(connection, record)
        changed = _set_tags(connection, run, record, members, running)
        changed |= _mark_members(connection, run, record, members)
    return changed


def _find_or_create(connection: Connection, record: SweepRecord) -> "Run":
    client = connection.client
    experiment_id = _experiment(connection)
    found = client.search_runs(
        [experiment_id], f"tags.`imbcil.sweep_key` = '{_identity(connection, record)}'"
    )
    if found:
        return found[0]
    tags = {
        "imbcil.role": "sweep",
        "imbcil.sweep": record.name,
        "imbcil.sweep_key": _identity(connection, record),
        "mlflow.user": "imbcil",
        "mlflow.source.name": "imbcil-bench",
    }
    return client.create_run(
        experiment_id, start_time=record.created_ms, run_name=f"sweep {record.name}", tags=tags
    )


def _identity(connection: Connection, record: SweepRecord) -> str:
    return f"{connection.store_id}-{record.key}"


def _experiment(connection: Connection) -> str:
    client = connection.client
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        created = client.create_experiment(EXPERIMENT, artifact_location=connection.artifact_root)
        for key, value in {"imbcil.sweeps": "yes", "imbcil.schema": "1"}.items():
            client.set_experiment_tag(created, key, value)
        return str(created)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _set_tags(
    connection: Connection, run: "Run", record: SweepRecord, members: Mapping[str, Truth], running: bool
) -> bool:
    states = [members[key].state.status if key in members else "missing" for key in record.run_keys]
    tags = {
        "imbcil.runs": str(len(states)),
        "imbcil.finished": str(states.count("finished")),
        "imbcil.failed": str(states.count("failed")),
        "mlflow.note.content": description(record, members),
    }
    changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
    for key, value in changed.items():
        connection.client.set_tag(run.info.run_id, key, value[:LONGEST_TEXT])
    return _set_status(connection, run, states, members, running) or bool(changed)


def _set_status(
    connection: Connection, run: "Run", states: Sequence[str], members: Mapping[str, Truth], running: bool
) -> bool:
    if all(state in ("finished", "failed") for state in states):
        wanted = "FAILED" if "failed" in states else "FINISHED"
    elif running:
        wanted = "RUNNING"
    else:
        wanted = "KILLED"
    if run.info.status == wanted:
        return False
    if wanted == "RUNNING":
        connection.client.update_run(run.info.run_id, status=wanted)
    else:
        end = max((truth.last_ms for truth in members.values()), default=None)
        connection.client.set_terminated(run.info.run_id, status=wanted, end_time=end or None)
    return True


def _mark_members(
    connection: Connection, sweep: "Run", record: SweepRecord, members: Mapping[str, Truth]
) -> bool:
    """Tag runs and means that belong to the sweep."""
    marks = {"imbcil.sweep": record.name[:LONGEST_TAG], "imbcil.sweep_run": sweep.info.run_id}
    groups = {group_of(truth, connection.store_id) for truth in members.values()}
    changed = False
    for name in sorted({experiment_name(truth.info) for truth in members.values()}):
        experiment = connection.client.get_experiment_by_name(name)
        for run in connection.client.search_runs([experiment.experiment_id]) if experiment else ():
            tags = run.data.tags
            mean = tags.get("imbcil.role") == "mean" and tags.get("imbcil.group") in groups
            if mean or tags.get("imbcil.run_key") in members:
                for key, value in marks.items():
                    if tags.get(key) != value:
                        connection.client.set_tag(run.info.run_id, key, value)
                        changed = True
    return changed


def description(record: SweepRecord, members: Mapping[str, Truth]) -> str:
    """A Markdown table: a row a learner, a column a protocol, means over the finished seeds."""
    columns = list(dict.fromkeys(cell.column for cell in record.cells))
    names = list(dict.fromkeys(cell.name for cell in record.cells))
    cells = {(cell.name, cell.column): cell for cell in record.cells}
    finished = [truth.state.final for truth in members.values() if truth.state.status == "finished"]
    metric = next((key for key in _SHOWN if any(key in final for final in finished)), _SHOWN[0])
    lines = [
        f"**{escape(record.name)}**: {len(record.cells)} cells, {len(record.run_keys)} runs. Shown: {metric} (%), "
        "mean over finished seeds (their number where some are missing).",
        "",
        f"| learner | {' | '.join(escape(column) for column in columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for name in names:
        values = [_value(cells.get((name, column)), members, metric) for column in columns]
        lines.append(f"| {escape(name)} | {' | '.join(values)} |")
    return "\n".join(lines)[:LONGEST_TEXT]


def _value(cell: RecordedCell | None, members: Mapping[str, Truth], metric: str) -> str:
    if cell is None:
        return ""
    truths = [members[key] for key in cell.runs if key in members]
    values = [truth.state.final[metric] for truth in truths if metric in truth.state.final]
    if not values:
        return "failed" if any(truth.state.status == "failed" for truth in truths) else ""
    missing = "" if len(values) == len(cell.runs) else f" ({len(values)} of {len(cell.runs)})"
    return f"{fmean(values):.2f}{missing}"
