"""The other side of tracking: what a database of MLflow holds, and a real server that tests stop and start again."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from imbcil.harness.tracking import TrackingSettings
from imbcil.harness.tracking.dashboard import free_port, is_ready

TABLES = ("metrics", "params", "tags", "runs", "inputs", "experiments", "datasets", "experiment_tags")


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
