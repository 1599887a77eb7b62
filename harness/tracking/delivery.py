"""Bring one run in MLflow up to what its folder says; doing so twice changes nothing."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from imbcil.harness.store.run_folder import Status
from imbcil.harness.tracking.client import Connection
from imbcil.harness.tracking.describe import finite, primary_key, readme, run_name, run_params, run_tags
from imbcil.harness.tracking.experiments import ensure_experiment
from imbcil.harness.tracking.parents import ensure_parent
from imbcil.harness.tracking.privacy import scrub, scrub_tree, scrub_value
from imbcil.harness.tracking.truth import Truth, group_of

if TYPE_CHECKING:
    from mlflow.entities import Run

MLFLOW_STATUS: Mapping[Status, str] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_AS_THEY_ARE = ("accuracy_matrix.csv", "per_class.csv")


@dataclass(frozen=True)
class Delivery:
    """What one delivery had to add."""

    created: bool = False
    phases: int = 0
    files: int = 0
    other: bool = False  # tags, params, final metrics
    ended: bool = False  # the status was set to an end

    def __bool__(self) -> bool:
        return any((self.created, self.phases, self.files, self.other, self.ended))


def deliver_run(connection: Connection, truth: Truth, status: Status) -> Delivery:
    """Log whatever MLflow lacks of this run. Raises what MLflow raises; a later call goes on from there."""
    with connection.lock():
        experiment_id = ensure_experiment(connection, truth.info)
        group = group_of(truth, connection.store_id)
        parent_id = ensure_parent(connection, experiment_id, truth, group)
        tags = run_tags(truth, group, status)
        run, created = _find_or_create(connection, experiment_id, truth, tags)
        if run.data.tags.get("mlflow.parentRunId") != parent_id:  # here: parents are replaced under this lock
            connection.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent_id)
    if not created and run.info.status != "RUNNING" and status == "running":
        connection.client.update_run(run.info.run_id, status="RUNNING")
    phases = _log_phases(connection, run, truth)
    other = _log_final(connection, run, truth)
    other |= _log_params_and_tags(connection, run, truth, tags)
    files = _log_files(connection, run, truth, status)
    ended = _set_status(connection, run, truth, status)
    return Delivery(created, phases, files, other, ended)


def _find_or_create(
    connection: Connection, experiment_id: str, truth: Truth, tags: Mapping[str, str]
) -> tuple["Run", bool]:
    """This run's entry, found by its key; one whose numbers are not ours is another training of that key."""
    client, info = connection.client, truth.info
    found = client.search_runs([experiment_id], f"tags.`imbcil.run_key` = '{info.run_key}'")
    foreign = []
    for run in found:
        if _agrees(connection, run, truth):
            return run, False
        foreign.append(run.info.run_id)
    identity = {key: value for key, value in tags.items() if key != "mlflow.note.content"}
    if foreign and connection.settings.embedded:  # on a server it may be someone else's
        identity["imbcil.supersedes"] = foreign[0]
        for run_id in foreign:
            client.delete_run(run_id)
    start = info.created_ms or truth.last_ms or None
    run = client.create_run(experiment_id, start_time=start, run_name=run_name(info), tags=identity)
    _log_dataset(connection, run.info.run_id, truth)
    return run, True


def _log_dataset(connection: Connection, run_id: str, truth: Truth) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    info = truth.info
    profile = {
        "classes": len(info.raw_counts),
        "train": sum(phase.train for phase in info.phases),
        "test": sum(phase.test for phase in info.phases),
        "imbalance": info.imbalance,
    }
    dataset = Dataset(
        name=info.dataset,
        digest=(info.digest or "unknown")[:32],  # 36 characters at most
        source_type="imbcil-bench",
        source=json.dumps({"protocol": info.column, "order": scrub_value(info.order)}),
        profile=json.dumps(profile),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])]
    connection.client.log_inputs(run_id, inputs)


def _points(truth: Truth) -> tuple[str | None, dict[int, tuple[int, float]]]:
    """The key by which phases are found again, and its (time, value) per phase."""
    common = [record for record in truth.records if record.metrics]
    shared = set.intersection(*(set(record.metrics) for record in common)) if common else set()
    key = primary_key({name: common[0].metrics[name] for name in shared}) if common else None
    if key is None:
        return None, {}
    points = {record.phase: (record.time_ms, finite(record.metrics).get(key)) for record in common}
    return key, {phase: (time, value) for phase, (time, value) in points.items() if value is not None}


def _history(connection: Connection, run_id: str, key: str) -> dict[int, tuple[int, float]]:
    history = connection.client.get_metric_history(run_id, key)
    return {int(point.step): (int(point.timestamp), float(point.value)) for point in history}


def _agrees(connection: Connection, run: "Run", truth: Truth) -> bool:
    """Whether every number that MLflow has of the run is one of ours."""
    key, ours = _points(truth)
    final = finite(truth.state.final)
    shown = run.data.metrics
    if any(shown[name] != final[name] for name in final if name in shown):
        return False
    if key is None:
        return not shown
    return _history(connection, run.info.run_id, key).items() <= ours.items()


def _log_phases(connection: Connection, run: "Run", truth: Truth) -> int:
    """Log the phases that are missing, one batch each, under their own times."""
    from mlflow.entities import Metric

    key, ours = _points(truth)
    there = _history(connection, run.info.run_id, key) if key else {}
    missing = [record for record in truth.records if record.phase not in there or record.phase not in ours]
    logged = 0
    for record in missing:
        points = [Metric(k, v, record.time_ms, record.phase) for k, v in finite(record.metrics).items()]
        if points:
            connection.client.log_batch(run.info.run_id, metrics=points)
        logged += record.phase in ours
    return logged


def _log_final(connection: Connection, run: "Run", truth: Truth) -> bool:
    """`final/*` once, at step 0: a single step is drawn as bars."""
    from mlflow.entities import Metric

    final = finite(truth.state.final)
    if not final or final.items() <= run.data.metrics.items():
        return False
    points = [Metric(key, value, truth.last_ms, 0) for key, value in final.items()]
    connection.client.log_batch(run.info.run_id, metrics=points)
    return True


def _log_params_and_tags(connection: Connection, run: "Run", truth: Truth, tags: Mapping[str, str]) -> bool:
    from mlflow.entities import Param, RunTag

    params = [Param(k, v) for k, v in run_params(truth).items() if k not in run.data.params]
    changed = [RunTag(k, v) for k, v in tags.items() if run.data.tags.get(k) != v]
    if params or changed:
        connection.client.log_batch(run.info.run_id, params=params, tags=changed)
    return bool(params or changed)


def _files(truth: Truth, status: Status) -> dict[str, bytes]:
    """Artifact path to content, of those that the folder has by now."""
    folder = truth.folder.path
    content = {"README.md": readme(truth, status).encode()}
    if truth.config:
        content["config.yaml"] = _config_text(truth)
    if (folder / "scenario.json").is_file():
        content["scenario.json"] = _scenario_text(folder / "scenario.json")
    figures = [f"figures/{path.name}" for path in sorted(truth.folder.figures.glob("*.png"))]
    for name in (*_AS_THEY_ARE, *figures):
        if (folder / name).is_file():
            content[name] = (folder / name).read_bytes()
    return content


def _config_text(truth: Truth) -> bytes:
    """The stored config; written anew only if it names folders of this machine."""
    clean = scrub_tree(truth.config)
    if clean == truth.config:
        return scrub(truth.folder.config_path.read_text(encoding="utf-8")).encode()  # comments, too
    return yaml.safe_dump(clean, sort_keys=False, allow_unicode=True).encode()


def _scenario_text(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        parsed = json.loads(data)
    except ValueError:
        return scrub(data.decode(errors="replace")).encode()
    clean = scrub_tree(parsed)
    return data if clean == parsed else json.dumps(clean, indent=1).encode()


def _log_files(connection: Connection, run: "Run", truth: Truth, status: Status) -> int:
    """Send files that are new, changed, or gone from MLflow's side; what was sent stands in a tag."""
    client, run_id = connection.client, run.info.run_id
    sent: dict[str, str] = _sent(run.data.tags.get("imbcil.files", ""))
    there = _listed(connection, run_id, ["", "figures"]) if sent else set()
    content = _files(truth, status)
    marks = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in content.items()}
    changed = [name for name in content if sent.get(name) != marks[name] or name not in there]
    for name in changed:
        _send(connection, run_id, name, content[name])
    if marks != sent:
        client.set_tag(run_id, "imbcil.files", json.dumps(marks))
    return len(changed)


def _sent(tag: str) -> dict[str, str]:
    try:
        stored = json.loads(tag or "{}")
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _listed(connection: Connection, run_id: str, folders: Sequence[str]) -> set[str]:
    return {
        entry.path for folder in folders for entry in connection.client.list_artifacts(run_id, folder or None)
    }


def _send(connection: Connection, run_id: str, name: str, data: bytes) -> None:
    place = PurePosixPath(name)
    with tempfile.TemporaryDirectory(prefix="imbcil-") as aside:
        local = Path(aside) / place.name
        local.write_bytes(data)
        parent = None if place.parent == PurePosixPath() else str(place.parent)
        connection.client.log_artifact(run_id, str(local), parent)


def _set_status(connection: Connection, run: "Run", truth: Truth, status: Status) -> bool:
    """The status, and the stored end; an end that is already there stays."""
    wanted = MLFLOW_STATUS[status]
    if status == "running":
        return False
    end = truth.last_ms if status == "interrupted" else max(truth.last_ms, truth.state.updated_ms)
    if run.info.status == wanted and run.info.end_time == (end or run.info.end_time):
        return False
    connection.client.set_terminated(run.info.run_id, status=wanted, end_time=end or None)
    return True
