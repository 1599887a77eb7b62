"""One experiment per protocol column and dataset, with the saved view that opens on its charts."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from imbcil.harness.store.run_folder import now_ms
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.tracking.client import Connection
from imbcil.harness.tracking.describe import escape
from imbcil.harness.tracking.truth import experiment_name
from imbcil.harness.tracking.view import VIEW, saved_view

if TYPE_CHECKING:
    from mlflow.entities import Experiment

SCHEMA = "1"


def ensure_experiment(connection: Connection, info: RunInfo) -> str:
    """The experiment's id; created, or restored from MLflow's bin, where needed. Call under the lock."""
    from mlflow.exceptions import MlflowException

    client, name = connection.client, experiment_name(info)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            created = client.create_experiment(name, artifact_location=connection.artifact_root)
        except MlflowException:  # another machine was faster on the same server
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
        else:
            found = client.get_experiment(created)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    _set_tags(connection, found, info)
    return str(found.experiment_id)


def _set_tags(connection: Connection, experiment: "Experiment", info: RunInfo) -> None:
    tags = {
        "mlflow.note.content": _description(info),
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": saved_view(now_ms()),
        "imbcil.schema": SCHEMA,  # last: it says that the others are there
    }
    if experiment.tags.get("imbcil.schema") == SCHEMA:
        return
    for key, value in tags.items():
        connection.client.set_experiment_tag(experiment.experiment_id, key, value)


def _description(info: RunInfo) -> str:
    phases, classes = len(info.phases), len(info.raw_counts)
    data = " Embedded data, rendered, not photographs." if info.embedded else ""
    return (
        f"**{escape(info.column)} on {escape(info.dataset)}**: {phases} phases, {classes} classes.{data}\n\n"
        "A row *name (mean of N)* carries the means over N seeds under the same metric names as its runs, with "
        "`_std` (sample standard deviation) and `_ci95` (half-width of the 95 % interval) beside them; its `+` "
        "shows the runs. The step of every `phase/` and `cost/` metric is the phase, counted from 0.\n\n"
        "Rebuilt from the run folders by `imbcil-bench sync`."
    )


def experiments_of(connection: Connection) -> Mapping[str, str]:
    """Name to id of the experiments that hold runs of imbcil-bench, the newest first; not that of the sweeps."""
    found = connection.client.search_experiments(order_by=["creation_time DESC"])
    return {each.name: str(each.experiment_id) for each in found if _holds_runs(each.tags)}


def _holds_runs(tags: Mapping[str, str]) -> bool:
    return "imbcil.schema" in tags and "imbcil.sweeps" not in tags


def repair_addresses(connection: Connection) -> bool:
    """After a store was moved, point MLflow's records at where its files are now; True if any was wrong.

    MLflow keeps absolute addresses for good and has no call that changes them, so this writes its tables.
    """
    database, root = connection.settings.database, connection.artifact_root
    if not connection.settings.embedded or database is None or root is None:
        return False
    with connection.lock(), closing(sqlite3.connect(database, timeout=20)) as raw, raw:
        moved = raw.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE artifact_location <> ? AND "
            "experiment_id IN (SELECT experiment_id FROM experiment_tags WHERE key = 'imbcil.schema')",
            (root,),
        ).fetchall()
        for experiment_id, old in moved:
            raw.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (root, len(old) + 1, experiment_id, len(old), old),
            )
            raw.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (root, experiment_id)
            )
    return bool(moved)
