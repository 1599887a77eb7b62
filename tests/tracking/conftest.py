"""Stores with a ready MLflow file, and a real MLflow server on loopback."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_sides import Server, Shown
from run_factory import new_store

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker
from imbcil.harness.tracking.client import connect, patient_and_quiet
from imbcil.harness.tracking.settings import embedded_tracking


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


@pytest.fixture
def shown(store: Store) -> Shown:
    return Shown(store.root / "mlflow.db")


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
