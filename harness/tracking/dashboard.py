"""`imbcil-bench ui`: MLflow's own dashboard on a store, as one small process that ends when we do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking.settings import ARTIFACTS, embedded_tracking

HOST = "127.0.0.1"  # MLflow asks for no login: whoever reaches the port may read and delete
START_SECONDS = 60.0
STOP_SECONDS = 15.0
GUARD = """
import os, signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def stop(*_):
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
def orphaned():
    sys.stdin.read()
    stop()
    try:
        server.wait(15)
    finally:
        os.killpg(os.getpgid(0), signal.SIGKILL)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
threading.Thread(target=orphaned, daemon=True).start()
sys.exit(server.wait())
"""  # runs the server that its arguments say, and ends it when its standard input closes
_INHERITED_SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI")


def serve(store: Store, port: int, say: Callable[[str], None], *, browser: bool = False) -> None:
    """Show the store until Ctrl-C or SIGTERM. `port` 0 takes a free one.

    Raises BadInput for a store without runs, a taken port or an unusable database, and RunStopped when the
    server ends by itself.
    """
    if not store.runs():
        raise BadInput(f"There are no runs in {store.root}; train one first or name another --store.")
    port = free_port(port)
    with _stopping_signals() as asked_to_stop:
        addresses = _addresses(store, f"http://{HOST}:{port}", say)
        if asked_to_stop:
            return
        with _server(store, port) as child:
            _wait_until_ready(child, port, asked_to_stop)
            if not asked_to_stop:
                _announce(addresses, say, browser)
            while not asked_to_stop and child.poll() is None:
                time.sleep(0.1)
            if not asked_to_stop:
                raise RunStopped(
                    f"MLflow's server ended by itself (exit code {child.returncode}); start it again."
                )


def _announce(addresses: Mapping[str, str], say: Callable[[str], None], browser: bool) -> None:
    for name, url in addresses.items():
        say(f"{name}: {url}")
    say("Ctrl-C ends the dashboard; the runs stay.")
    if browser and addresses:
        _open(next(iter(addresses.values())))


def free_port(wanted: int) -> int:
    """`wanted`, or any free port for 0. Raises BadInput when something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does after a restart
        try:
            probe.bind((HOST, wanted))
        except PermissionError:
            raise BadInput(
                f"Port {wanted} needs administrator's rights; choose --port 5000 or above."
            ) from None
        except OSError:
            raise BadInput(f"Port {wanted} is taken; choose another one with --port.") from None
        return int(probe.getsockname()[1])


def _addresses(store: Store, base: str, say: Callable[[str], None]) -> Mapping[str, str]:
    """Charts address per experiment, newest first, after the store's own database was brought up to date.

    Asked of a process that ends: the one that waits for Ctrl-C stays small without MLflow in it.
    """
    answer = subprocess.run(
        [sys.executable, "-m", "imbcil.harness.tracking.addresses", str(store.root), base],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,  # Ctrl-C is for us to handle
        check=False,
    )
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or not lines:
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RunStopped(f"MLflow could not be asked about {store.root}: {last}.")
    report = json.loads(lines[-1])
    if report["refused"]:
        raise BadInput(report["refused"])
    for sentence in report["warnings"]:
        say(sentence)
    return dict(report["charts"])


@contextmanager
def _server(store: Store, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server, in a process group of its own and below a guard, so that nothing of it can be left behind."""
    child = subprocess.Popen(
        [sys.executable, "-c", GUARD, *server_command(store, port)],
        cwd=store.root,
        env=_environment(os.environ),
        stdin=subprocess.PIPE,  # closes when we are gone, however we ended
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        end(child)


def server_command(store: Store, port: int) -> list[str]:
    """MLflow's server on the store's own database: one worker, this machine only."""
    database = embedded_tracking(store).uri or ""
    artifacts = (store.root / ARTIFACTS).as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    return [
        *command,
        "--default-artifact-root",
        artifacts,
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in inherited.items() if name not in _INHERITED_SETTINGS}
    return {"MLFLOW_DISABLE_TELEMETRY": "true"} | kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then make sure that its whole group has."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def _stopping_signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of dying from them; sets the old handlers back."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_ready(child: subprocess.Popen[bytes], port: int, asked_to_stop: list[int]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not asked_to_stop:
        if child.poll() is not None:
            raise BadInput(f"MLflow's server did not start on port {port}; choose another one with --port.")
        if is_ready(f"http://{HOST}:{port}"):
            return
        if time.monotonic() > deadline:
            raise RunStopped(f"MLflow's server did not answer on port {port} within {START_SECONDS:.0f} s.")
        time.sleep(0.1)


def is_ready(base: str) -> bool:
    """Whether an MLflow server answers there. Asked without a proxy: it is this machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}/health", timeout=2) as answer:
            return bool(answer.read().strip() == b"OK")
    except (OSError, ValueError):
        return False


def _open(url: str) -> None:
    import webbrowser

    with suppress(webbrowser.Error):
        webbrowser.open(url)
