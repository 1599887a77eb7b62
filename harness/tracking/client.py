"""Opening MLflow: locks, patience, a database made whole or not at all, and its errors as one sentence."""

import logging
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.files import atomic_write
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking.privacy import scrub
from imbcil.harness.tracking.settings import ARTIFACTS, TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
_NOISY_LOGGERS = ("mlflow", "alembic", "urllib3")
_OTHER_SCHEMA = ("Can't locate revision", "out-of-date database schema", "_alembic_tmp", "duplicate column")
_LOCAL_LOCK_SECONDS = 60.0
_REMOTE_LOCK_SECONDS = 3.0


@dataclass(frozen=True)
class Connection:
    """An open MLflow and what is needed to create things in it without doubling them."""

    client: "MlflowClient"
    store: Store
    settings: TrackingSettings
    store_id: str

    def lock(self) -> FileLock:
        """Held while something is found or created; also by other processes on this store."""
        return creation_lock(self.store, self.settings)

    @property
    def artifact_root(self) -> str | None:
        """Where a new experiment keeps files; None: the server knows."""
        if self.settings.remote:
            return None
        database = self.settings.database
        folder = self.store.root if database is None else database.absolute().parent
        return (folder / ARTIFACTS).as_uri()


def creation_lock(store: Store, settings: TrackingSettings) -> FileLock:
    """The store's lock around find-or-create; a server's is another one, so that one which hangs holds up nobody who
    writes the store's own file."""
    if settings.remote:
        return FileLock(store.root / ".mlflow-server.lock", timeout=_REMOTE_LOCK_SECONDS)
    return FileLock(store.root / ".mlflow.lock", timeout=_LOCAL_LOCK_SECONDS)


@contextmanager
def patient_and_quiet(remote: bool) -> Iterator[None]:
    """Set MLflow's retries, time limit and talkativeness, where the user has not, and set them back.

    MLflow reads these variables at each request; without them one dead server costs four minutes a call.
    """
    wanted = _QUIET | (_PATIENCE if remote else {})
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    levels: dict[str, int] = {}
    try:
        import mlflow  # noqa: F401  # sets its loggers up: their levels are lowered after that

        for name in _NOISY_LOGGERS:
            levels[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def connect(store: Store, settings: TrackingSettings) -> Connection:
    """Open what `settings` names; a missing SQLite file is made. To be called inside `patient_and_quiet`.

    Raises BadInput for a file that is no database of this MLflow, and whatever MLflow raises.
    """
    if settings.uri is None:
        raise ValueError("Tracking is switched off; there is nothing to connect to.")
    from mlflow import MlflowClient

    with creation_lock(store, settings):
        store_id = _store_id(store)
        if settings.database is not None:
            _prepare_database(settings.database.absolute(), settings)
        client = MlflowClient(tracking_uri=settings.uri)
    return Connection(client, store, settings, store_id)


def _store_id(store: Store) -> str:
    """A random name that moves with the store; two stores on one server keep their own means."""
    path = store.root / "tracking.id"
    if not path.exists():
        atomic_write(path, uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()


def _prepare_database(database: Path, settings: TrackingSettings) -> None:
    """Make the file aside and rename it: a kill amid MLflow's migrations would spoil it for good."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        if database.exists() and database.stat().st_size:
            _check_readable(database)
            return
        aside = Path(tempfile.mkdtemp(prefix=".mlflow-", dir=database.parent))
    except OSError as error:
        raise BadInput(f"Cannot write {database}: {error.strerror}; choose another --tracking-uri.") from None
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        open_store: Callable[[str, str], Any] = SqlAlchemyStore  # which MLflow has not typed
        artifacts = (database.parent / ARTIFACTS).as_uri()
        open_store(f"sqlite:///{aside / database.name}", artifacts).engine.dispose()
        (aside / database.name).replace(database)
        # Connections that this process still has to a file deleted meanwhile must not be used again.
        open_store(str(settings.uri), artifacts).engine.dispose()
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_readable(database: Path) -> None:
    """Ask SQLite itself first: MLflow retries for a minute and a half on a file that it cannot open."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=20)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raise BadInput(f"Cannot open {database}: {error}; check its permissions.") from None
    except sqlite3.DatabaseError:
        raise BadInput(f"{database} is damaged: it is no SQLite database; {_REBUILD}") from None


_REBUILD = "move it away and run `imbcil-bench sync`, which rebuilds it from the run folders."


def explain(error: BaseException, settings: TrackingSettings) -> str:
    """Why MLflow failed, in one sentence without passwords; says what to do where something can be done."""
    text = str(error)
    if isinstance(error, BadInput):
        return text
    place = str(settings.database) if settings.database is not None else settings.shown
    if any(mark in text for mark in _OTHER_SCHEMA) or ("table" in text and "already exists" in text):
        return (
            f"{place} was made by another version of MLflow than this one ({_mlflow_version()}): "
            f"use that version, or {_REBUILD}"
        )
    if isinstance(error, Timeout):
        return f"MLflow at {place} is being prepared by another process, which takes too long."
    if settings.remote and ("Max retries exceeded" in text or "Timeout" in type(error).__name__):
        return f"MLflow at {place} does not answer."
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"MLflow at {place} failed: {scrub(line)[:300].rstrip('. ')}."


def _mlflow_version() -> str:
    with suppress(ImportError):
        from mlflow.version import VERSION

        return str(VERSION)
    return "none"
