"""Where runs are tracked: the store's own SQLite file, a server, or nowhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import Store

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
_SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class TrackingSettings(Frozen):
    """MLflow's address (None: not tracked) and whether it is the file that lies in the store itself."""

    uri: str | None
    embedded: bool = False

    @property
    def remote(self) -> bool:
        """Whether a server keeps the runs, which may be down or slow."""
        return self.uri is not None and urlsplit(self.uri).scheme in _SERVERS

    @property
    def database(self) -> Path | None:
        """The SQLite file behind the address, if it is one."""
        prefix = "sqlite:///"
        return Path(self.uri.removeprefix(prefix)) if self.uri and self.uri.startswith(prefix) else None

    @property
    def shown(self) -> str:
        """The address for messages: without user name and password."""
        return without_password(self.uri or "none")


def embedded_tracking(store: Store) -> TrackingSettings:
    """The SQLite file inside the store."""
    return TrackingSettings(uri=f"sqlite:///{store.root / DATABASE}", embedded=True)


def resolve_tracking(
    store: Store,
    uri: str | None = None,
    *,
    disabled: bool = False,
    environ: Mapping[str, str] | None = None,
) -> TrackingSettings:
    """`--no-tracking`, else `--tracking-uri`, else MLFLOW_TRACKING_URI, else the store's own SQLite file.

    Raises BadInput for an address that MLflow could not use.
    """
    if disabled:
        return TrackingSettings(uri=None)
    environ = os.environ if environ is None else environ
    source = "--tracking-uri" if uri else "MLFLOW_TRACKING_URI"
    given = (uri or environ.get("MLFLOW_TRACKING_URI", "")).strip()
    if not given:
        return embedded_tracking(store)
    _check(given, source)
    settings = TrackingSettings(uri=given.rstrip("/"))
    own = store.root / DATABASE
    if settings.database is not None and settings.database.absolute() == own:
        return embedded_tracking(store)
    return settings


def _check(uri: str, source: str) -> None:
    shown = without_password(uri)
    try:
        parts = urlsplit(uri)
        usable_port = parts.port is None or parts.port > 0
    except ValueError:
        raise BadInput(f"{source} {shown!r} is no address; write http://host:port.") from None
    scheme = parts.scheme.split("+")[0]
    if scheme in _SERVERS:
        if not parts.hostname or not usable_port:
            raise BadInput(f"{source} {shown!r} names no host; write http://host:port.")
    elif scheme not in _DATABASES:
        raise BadInput(
            f"{source} {shown!r} is no address that runs can be tracked at; write http://host:port or "
            "sqlite:///folder/mlflow.db, or leave it out to use the store's own file."
        )
    elif scheme == "sqlite" and (not uri.startswith("sqlite:///") or set(uri) & set("%?")):
        raise BadInput(
            f"{source} {shown!r}: a SQLite address is sqlite:/// and a path without % and ?, "
            "such as sqlite:///runs/mlflow.db."
        )


def without_password(uri: str) -> str:
    """The address with `user:password@` taken out of it."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
