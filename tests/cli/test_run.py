"""`run` as a person sees it, in processes of its own: results, plan, interruption, resumption, exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SMALL = (
    "--dataset",
    "tiny",
    "--n-tasks",
    "2",
    "--set",
    "backbone.name=tiny",
    "--set",
    "train.epochs=1",
    "--set",
    "train.first_phase=1",
    "--no-tracking",
)


@pytest.fixture
def run(cli, tmp_path: Path):
    """`imbcil-bench run` on six classes of 8 x 8 pixels, imported into a cache of the test's own."""
    labels = np.repeat(np.arange(6), 20)
    noise = np.random.default_rng(0).integers(0, 40, (120, 8, 8, 3))
    images = (noise + 35 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    own = {"IMBCIL_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    imported = cli("data", "import", "tiny", "--from", "tiny.npz", env=own)
    assert imported.returncode == 0, imported.stderr
    return lambda *arguments: cli("run", *arguments, env=own)


def test_a_run_ends_with_the_table_and_with_where_everything_is(run):
    done = run(*SMALL, "--method", "replay", "--method", "finetune")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^replay +\d+\.\d\d \(1\)", done.stdout, re.MULTILINE)
    assert "replay, seed 0: phase 2 of 2 done: seen" in done.stdout
    *_, runs, dashboard = done.stdout.splitlines()
    assert re.fullmatch(r"Runs: +store/runs  \(imbcil-bench status --store store; .*\)", runs)
    assert dashboard.startswith("Dashboard: ")
    assert done.stderr == ""


def test_json_is_all_of_standard_output(run):
    done = run(*SMALL, "--method", "finetune", "--seeds", "0,1", "--json")
    result = json.loads(done.stdout)
    assert [(r["method"], r["seed"], r["status"], r["phases_done"]) for r in result["runs"]] == [
        ("finetune", 0, "finished", 2),
        ("finetune", 1, "finished", 2),
    ]
    assert all(0 <= r["final"]["final/avg_acc_total"] <= 100 for r in result["runs"])
    assert "finetune, seed 1 on lfs-2 of tiny" in done.stderr


def test_a_dry_run_names_every_run_and_writes_no_store(run, tmp_path: Path):
    done = run(*SMALL, "--method", "finetune", "--seeds", "0,1", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"finetune, seed [01] on lfs-2 of tiny: .*run [0-9a-f]{16}, new", done.stdout)) == 2
    assert not (tmp_path / "store").exists()
    planned = json.loads(run(*SMALL, "--method", "finetune", "--dry-run", "--json").stdout)["runs"]
    assert [(p["method"], p["state"]) for p in planned] == [("finetune", "new")]


def test_a_stored_config_repeats_its_run_and_a_finished_run_is_not_trained_again(run, tmp_path: Path):
    assert run(*SMALL, "--method", "replay").returncode == 0
    (config,) = tmp_path.glob("store/runs/*/config.yaml")
    again = run("--config", config, "--no-tracking")
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout
    assert "starts" not in again.stdout
    forced = run("--config", config, "--no-tracking", "--force")
    assert "starts" in forced.stdout
    assert (tmp_path / "store" / "runs" / f"{config.parent.name}-2").is_dir()


def test_the_learner_of_the_readme_joins_by_its_path(run, tmp_path: Path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert code, "README shows a learner"
    (tmp_path / "mine.py").write_text(code[1])
    done = run(*SMALL, "--method", "./mine.py", "--method", "./mine.py+class_balanced_sampling")
    assert done.returncode == 0, done.stderr
    assert "mine, seed 0 finished" in done.stdout
    assert "mine+class_balanced_sampling, seed 0 finished" in done.stdout


def test_a_loss_that_is_not_finite_ends_with_1_and_names_the_place(run):
    done = run(*SMALL, "--method", "finetune", "--set", "train.lr=1e30")
    assert done.returncode == 1
    assert re.search(r"'ce'.*not finite.*phase.*epoch 1", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_the_same_command_goes_on_from_there(run, tmp_path: Path, number: int):
    words = ("run", *SMALL, "--method", "finetune", "--set", "train.epochs=400", "--checkpoint-every", "3600")
    environment = {
        "IMBCIL_DATA": str(tmp_path / "data"),
        "IMBCIL_STORE": str(tmp_path / "store"),
        "OMP_NUM_THREADS": "1",
    }
    script = str(Path(sys.executable).with_name("imbcil-bench"))
    process = subprocess.Popen(
        [script, *words], cwd=tmp_path, env={**environment, "PATH": "/usr/bin:/bin"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch" in line:
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Stopping: the run is saved" in errors
    assert re.search(r"Stopped in phase \d of 2.*The same command continues from there\.", errors)
    resumed = run(*words[1:])
    assert resumed.returncode == 0, resumed.stderr
    assert "continues from phase" in resumed.stdout


def test_a_signal_before_training_ends_at_once_with_130(tmp_path: Path):
    code = (
        "import os, signal, threading, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        "from imbcil.harness.cli import list as module\n"
        "from imbcil.harness.cli.main import main\n"
        "def wait():\n    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n    time.sleep(30)\n"
        "module.LISTS['recipes'] = wait\n"
        "main(['list', 'recipes'])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Error: Interrupted.")
    assert time.monotonic() - started < 20
