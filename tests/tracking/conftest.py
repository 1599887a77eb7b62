"""Stores with a ready MLflow file, and a real MLflow server on loopback that tests may stop and start again."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from run_factory import new_store

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, TrackingSettings
from imbcil.harness.tracking.client import connect, patient_and_quiet
from imbcil.harness.tracking.dashboard import free_port, is_ready
from imbcil.harness.tracking.settings import embedded_tracking

Cli = Callable[..., subprocess.CompletedProcess[str]]
TABLES = ("metrics", "params", "tags", "runs", "inputs", "experiments", "datasets", "experiment_tags")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, copied into stores because making one takes more than a second."""
    store = new_store(tmp_path_factory.mktemp("template") / "store")
    with patient_and_quiet(remote=False):
        connect(store, embedded_tracking(store))
    return store.root / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    made = new_store(tmp_path / "store")
    shutil.copy(empty_database, made.root / "mlflow.db")
    return made


@pytest.fixture
def said() -> list[str]:
    """What the tracker warned of."""
    return []


@pytest.fixture
def tracker(store: Store, said: list[str]) -> Tracker:
    return Tracker(embedded_tracking(store), store, said.append)


class Shown:
    """What a SQLite file of MLflow holds, read without MLflow."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def query(self, text: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=20)) as raw:
            return raw.execute(text, values).fetchall()

    def row_counts(self) -> dict[str, int]:
        return {table: self.query(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}

    def run_id(self, name: str) -> str:
        found = self.query("SELECT run_uuid FROM runs WHERE name = ? AND lifecycle_stage = 'active'", name)
        assert len(found) == 1, f"{len(found)} runs are called {name}"
        return found[0][0]

    def names(self) -> list[str]:
        return [
            row[0]
            for row in self.query("SELECT name FROM runs WHERE lifecycle_stage = 'active' ORDER BY name")
        ]

    def points(self, name: str) -> dict[tuple[str, int], tuple[float, int]]:
        """(key, step) to (value, time); fails where a step has two points."""
        rows = self.query(
            "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ?", self.run_id(name)
        )
        found = {(key, step): (value, time_ms) for key, step, value, time_ms in rows}
        assert len(found) == len(rows), "a metric has two points at one step"
        return found

    def tags(self, name: str) -> dict[str, str]:
        return dict(self.query("SELECT key, value FROM tags WHERE run_uuid = ?", self.run_id(name)))

    def params(self, name: str) -> dict[str, str]:
        return dict(self.query("SELECT key, value FROM params WHERE run_uuid = ?", self.run_id(name)))

    def status(self, name: str) -> str:
        return self.query("SELECT status FROM runs WHERE run_uuid = ?", self.run_id(name))[0][0]


@pytest.fixture
def shown(store: Store) -> Shown:
    return Shown(store.root / "mlflow.db")


class Server:
    """A real MLflow server in a process group of its own."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.port = folder, free_port(0)
        shutil.copy(database, folder / "server.db")
        self.database = folder / "server.db"
        self.process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> TrackingSettings:
        return TrackingSettings(uri=self.uri)

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "files")]
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not is_ready(self.uri):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Server(folder, empty_database)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]
