"""A server that is down, silent, slow or no MLflow: training goes on, one warning, nothing left behind."""

import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from run_factory import add_phase, finish_run, start_run

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, TrackingSettings, sync_store
from imbcil.harness.tracking.client import creation_lock, patient_and_quiet
from imbcil.harness.tracking.dashboard import free_port
from imbcil.harness.tracking.settings import embedded_tracking
from imbcil.harness.tracking.tracker import PHASE_SECONDS

FEW_SECONDS = PHASE_SECONDS + 3  # the import of MLflow and a busy machine


@pytest.fixture(autouse=True)
def imported_mlflow() -> None:
    import mlflow  # noqa: F401  # its second of import is no part of what is timed


def test_without_tracking_nothing_is_made_and_nothing_is_owed(tmp_path, said) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    run = start_run(store)
    tracker = Tracker(TrackingSettings(uri=None), store, said.append)
    assert tracker.deliver(run, "running")
    assert tracker.deliver_parent([run])
    assert not list(store.root.glob("*mlflow*"))
    assert said == []


def test_a_dead_server_costs_a_moment_a_phase_and_one_warning(store: Store, said) -> None:
    run = start_run(store)
    tracker = Tracker(TrackingSettings(uri=f"http://me:hunter2@127.0.0.1:{free_port(0)}"), store, said.append)
    for phase in range(3):
        add_phase(run, phase)
        begun = time.monotonic()
        assert not tracker.deliver(run, "running")
        assert time.monotonic() - begun < FEW_SECONDS
    assert len(said) == 1
    assert "does not answer" in said[0]
    assert "imbcil-bench sync" in said[0]
    assert "hunter2" not in said[0]


def test_one_who_waits_for_a_server_does_not_hold_up_the_stores_own_file(store: Store) -> None:
    server = TrackingSettings(uri="http://127.0.0.1:1")
    with creation_lock(store, server):
        assert creation_lock(store, embedded_tracking(store)).acquire(timeout=0)


def test_a_server_that_never_answers_is_not_waited_for(store: Store, said, silent_port: int) -> None:
    run = start_run(store)
    tracker = Tracker(TrackingSettings(uri=f"http://127.0.0.1:{silent_port}"), store, said.append)
    begun = time.monotonic()
    assert not tracker.deliver(run, "running")
    assert time.monotonic() - begun < FEW_SECONDS
    begun = time.monotonic()
    assert not tracker.deliver(run, "running")  # the first attempt still hangs: not even begun
    assert time.monotonic() - begun < 1
    assert len(said) == 1


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_that_is_no_mlflow_is_a_warning_too(store: Store, said) -> None:
    other = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        settings = TrackingSettings(uri=f"http://127.0.0.1:{other.server_port}")
        assert not Tracker(settings, store, said.append).deliver(start_run(store), "running")
        with pytest.raises(RunStopped, match="Nothing is lost"):
            sync_store(store, settings, said.append)
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert len(said) == 1


def test_a_sync_to_a_dead_server_says_that_nothing_is_lost(store: Store, said) -> None:
    finish_run(store)
    settings = TrackingSettings(uri=f"http://127.0.0.1:{free_port(0)}")
    with pytest.raises(RunStopped, match=r"does not answer\. Nothing is lost"):
        sync_store(store, settings, said.append)


def test_an_unwritable_database_is_a_warning(store: Store, said) -> None:
    settings = TrackingSettings(uri=f"sqlite:///{store.root}/store.json/deeper/mlflow.db")
    assert not Tracker(settings, store, said.append).deliver(start_run(store), "running")
    assert "Cannot write" in said[0]


def test_patience_is_set_only_for_the_call_and_only_where_the_user_has_not(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    before = dict(os.environ)
    level = logging.getLogger("mlflow").level
    with patient_and_quiet(remote=True):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert dict(os.environ) == before
    assert logging.getLogger("mlflow").level == level


def test_sync_without_tracking_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="tracking is off"):
        sync_store(store, TrackingSettings(uri=None), print)
