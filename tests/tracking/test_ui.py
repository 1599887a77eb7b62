"""The dashboard: one small process, a full address, a clear word when it cannot start, and nothing left behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from console import Cli
from run_factory import add_phase, end_run, finish_run, start_run

from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import dashboard
from imbcil.harness.tracking.dashboard import is_ready

SCRIPT = Path(sys.executable).with_name("imbcil-bench")


@contextmanager
def running_dashboard(store: Store, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command on a free port, and the first address it prints; killed with its server in any case."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [SCRIPT, "ui", "--store", store.root, "--port", "0"],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process, re.search(r"http://\S+", log.read_text())[0]
    finally:
        for pid in [*processes_on(store), process.pid]:
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        process.wait()


def processes_on(store: Store) -> list[int]:
    """Processes whose command line or environment names the store's database."""
    mark = str(store.root / "mlflow.db").encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="counting processes needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_dashboard_prints_its_charts_and_leaves_no_process_behind(
    store: Store, tmp_path: Path, number: signal.Signals
) -> None:
    finish_run(store)
    with running_dashboard(store, tmp_path / "log") as (process, url):
        base = url.split("/#/")[0]
        assert url == (
            f"{base}/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART"
            "&viewStateShareKey=imbcil-by-method"
        )
        assert is_ready(base)
        assert len(processes_on(store)) == 3  # a guard, mlflow and its one worker
        process.send_signal(number)
        assert process.wait(30) == 0
        assert processes_on(store) == []
        assert not is_ready(base)
    assert (tmp_path / "log").read_text().splitlines() == [
        f"lfs-3 glyphs6-lt: {url}",
        "Ctrl-C ends the dashboard; the runs stay.",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="counting processes needs /proc")
def test_the_server_ends_with_a_dashboard_that_is_killed(store: Store, tmp_path: Path) -> None:
    finish_run(store)
    with running_dashboard(store, tmp_path / "log") as (process, url):
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while processes_on(store) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_on(store) == []
        assert not is_ready(url.split("/#/")[0])


def test_a_taken_port_is_said_before_anything_is_started(store: Store, cli: Cli) -> None:
    finish_run(store)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = cli("ui", "--store", store.root, "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: Port {port} is taken; choose another one with --port.\n"


def test_a_store_without_runs_has_no_dashboard(cli: Cli, tmp_path: Path) -> None:
    done = cli("ui", "--store", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "There are no runs in" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_a_database_that_mlflow_cannot_open_is_said_before_a_server_is_started(
    store: Store, cli: Cli
) -> None:
    finish_run(store)
    (store.root / "mlflow.db").write_bytes(b"no database " * 100)
    done = cli("ui", "--store", store.root, "--port", "0")
    assert done.returncode == 2
    assert "mlflow.db is damaged" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_ends_by_itself_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_run(store)
    monkeypatch.setattr(dashboard, "server_command", lambda _store, _port: [sys.executable, "-c", "pass"])
    with pytest.raises(dashboard.BadInput, match="did not start on port"):
        dashboard.serve(store, 0, print)


def test_the_server_sees_this_machine_only_and_runs_no_jobs(store: Store) -> None:
    command = dashboard.server_command(store, 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--workers") + 1] == "1"
    environment = dashboard._environment({"MLFLOW_TRACKING_URI": "http://x", "PATH": "/bin"})
    assert environment == {
        "PATH": "/bin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def browser() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(
    browser() is None, reason="no chromium on this machine: the dashboard's page is not rendered"
)
def test_the_printed_address_lands_on_charts_of_the_runs(store: Store, tmp_path: Path) -> None:
    for method, seed in (("icarl", 0), ("icarl", 1), ("replay", 0)):
        run = start_run(store, seed, method)
        for phase in range(3):
            add_phase(run, phase)
        end_run(run)
    with running_dashboard(store, tmp_path / "log") as (_process, url):
        visits = (
            rendered(url, tmp_path / f"profile-{visit}") for visit in range(3)
        )  # a busy machine is late
        page = next((page for page in visits if "js-plotly-plot" in page), "")
    assert page, "no chart was drawn in three visits"
    for expected in (
        "by method, seeds averaged",
        "icarl (mean of 2)",
        "replay (mean of 1)",
        "phase/acc_total",
    ):
        assert expected in page, f"{expected!r} is not on the page"
    assert page.count("js-plotly-plot") >= 3
    assert page.index(">phase<") < page.index(">final<") < page.index(">cost<")


def rendered(url: str, profile: Path) -> str:
    """The page's elements as a browser without a past has them a minute (of its own time) after loading.

    Charts are drawn only when they come into sight, so the page has to be painted.
    """
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={profile}", "--window-size=1600,1300", "--virtual-time-budget=60000"]
    options += ["--run-all-compositor-stages-before-draw"]
    done = subprocess.run(
        [browser(), *options, "--dump-dom", url], capture_output=True, text=True, timeout=180, check=True
    )
    return done.stdout
