"""The store's own database: made whole, by one process of many, mended after a move, rebuilt after a loss."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from console import Cli
from mlflow_sides import Shown
from run_factory import finish_run, new_store, start_run

from imbcil.harness.base.errors import RunStopped
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, sync_store
from imbcil.harness.tracking.settings import embedded_tracking

TELL = """
import sys
from pathlib import Path
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import Tracker, resolve_tracking
store = Store(Path(sys.argv[1]))
tracker = Tracker(resolve_tracking(store, environ={}), store, lambda text: print(text, file=sys.stderr))
sys.exit(0 if tracker.deliver(store.run(sys.argv[2]), "finished") else 1)
"""


@pytest.mark.slow
def test_eight_processes_that_open_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    runs = [finish_run(store, seed) for seed in range(8)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TELL, str(store.root), run.path.name],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for run in runs
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said
    shown = Shown(store.root / "mlflow.db")
    assert shown.names() == ["icarl (mean)", *(f"icarl s{seed}" for seed in range(8))]
    for seed in range(8):
        assert len(shown.points(f"icarl s{seed}")) == 3 * 4 + 2 + 2
    assert not list(store.root.glob(".mlflow-*"))


def test_a_database_that_was_deleted_is_rebuilt_from_the_run_folders(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = finish_run(store)
    tracker.deliver(run, "finished")
    points = shown.points("icarl s0")
    (store.root / "mlflow.db").unlink()
    shutil.rmtree(store.root / "mlflow-artifacts")
    assert tracker.deliver(run, "finished")
    assert shown.points("icarl s0") == points
    assert list((store.root / "mlflow-artifacts").rglob("config.yaml"))


def test_an_empty_file_is_made_a_database(store: Store, tracker: Tracker, shown: Shown) -> None:
    (store.root / "mlflow.db").write_bytes(b"")
    assert tracker.deliver(start_run(store), "running")
    assert "icarl s0" in shown.names()


@pytest.mark.parametrize("files_came_along", [True, False], ids=["with its files", "without them"])
def test_a_store_that_was_moved_shows_its_files_again(
    store: Store, tracker: Tracker, cli: Cli, tmp_path: Path, files_came_along: bool
) -> None:
    run = finish_run(store)
    tracker.deliver(run, "finished")
    old = store.root
    moved = old.rename(tmp_path / "else where")
    if not files_came_along:
        shutil.rmtree(moved / "mlflow-artifacts")
    done = cli("sync", "--store", moved)  # another process: MLflow remembers addresses within one
    told = f"1 run, {int(not files_came_along)} delivered (0 new, 0 phases, {0 if files_came_along else 6} files)"
    assert told in done.stdout, done.stderr
    query = "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments WHERE experiment_id > 0"
    addresses = [uri for (uri,) in Shown(moved / "mlflow.db").query(query)]
    assert all(uri.startswith((moved / "mlflow-artifacts").as_uri()) for uri in addresses)
    assert list((moved / "mlflow-artifacts").rglob("figures/accuracy_matrix.png"))
    assert not old.exists()
    assert "nothing to deliver" in cli("sync", "--store", moved).stdout


@pytest.mark.parametrize("revision", ["fffffffffff0", "451aebb31d03"], ids=["newer", "older"])
def test_a_database_of_another_mlflow_is_explained_in_one_sentence(
    store: Store, tracker: Tracker, said: list[str], revision: str
) -> None:
    with closing(sqlite3.connect(store.root / "mlflow.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    run = finish_run(store)
    assert not tracker.deliver(run, "finished")
    assert "was made by another version of MLflow" in said[0]
    assert "rebuilds it from the run folders" in said[0]
    with pytest.raises(RunStopped, match="another version of MLflow") as caught:
        sync_store(store, tracker.settings, said.append)
    assert "\n" not in str(caught.value)


def test_a_newer_database_with_other_tables_is_explained_as_well(
    store: Store, tracker: Tracker, said: list[str]
) -> None:
    with closing(sqlite3.connect(store.root / "mlflow.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = 'fffffffffff0'")
        raw.execute("DROP TABLE webhooks")
    assert not tracker.deliver(finish_run(store), "finished")
    assert "was made by another version of MLflow" in said[0]


def test_a_file_that_is_no_database_is_named_at_once(store: Store, tracker: Tracker, said: list[str]) -> None:
    (store.root / "mlflow.db").write_bytes(b"no database " * 100)
    assert not tracker.deliver(start_run(store), "running")
    assert "mlflow.db is damaged" in said[0]


def test_a_process_killed_while_it_makes_the_database_leaves_none_behind(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    aside = store.root / ".mlflow-killed"
    aside.mkdir()
    (aside / "mlflow.db").write_bytes(b"half")
    run = finish_run(store)
    assert Tracker(embedded_tracking(store), store, print).deliver(run, "finished")
    assert "icarl s0" in Shown(store.root / "mlflow.db").names()
