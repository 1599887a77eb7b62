"""`imbcil-bench status` as a person types it."""

import json

import pytest
from fake_runs import add_run, make_store


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def test_every_state_is_told_apart(cli, store):
    add_run(store, "icarl", 30)
    add_run(store, "replay", 30, status="running", done=1)  # its process is gone
    add_run(store, "joint", 30, status="failed", reason="loss is NaN in phase 1", done=1)
    living = add_run(store, "wa", 30, status="running", done=1)
    with living.owner_lock():
        listed = {run["method"]: run for run in json.loads(cli("status", "--json").stdout)}
        shown = " ".join(cli("status", env={"COLUMNS": "200"}).stdout.split())
    assert {name: run["state"] for name, run in listed.items()} == {
        "icarl": "finished",
        "replay": "stopped",
        "joint": "failed",
        "wa": "running",
    }
    assert listed["icarl"]["final"]["final/avg_acc_task_mean"] == 30
    assert (listed["wa"]["phases_done"], listed["wa"]["phases"]) == (1, 2)
    assert "failed: loss is NaN in phase 1 " in shown
    assert "the same command continues it" in shown
    assert "1 finished, 1 running, 1 stopped, 1 failed" in shown


def test_why_a_run_failed_is_one_line_below_the_table_and_not_folded_into_a_column(cli, store):
    reason = (
        "Cannot write a checkpoint to /somewhere: No space left on device. Free space, then run it again."
    )
    add_run(store, "joint", 30, status="failed", reason=reason, done=1)
    lines = cli("status", env={"COLUMNS": "80"}).stdout.splitlines()
    assert [line for line in lines if reason in line and "failed: " in line]


def test_a_run_that_is_not_finished_has_no_final_number(cli, store):
    add_run(store, accuracy=77, status="interrupted", done=1)
    assert json.loads(cli("status", "--json").stdout)[0]["final"] == {}
    assert "77" not in cli("status").stdout


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_line_is_wider_than_the_terminal(cli, store, width):
    add_run(store, "gradient_reweighting+balanced_softmax", dataset="glyphs100-lt", embedded=True)
    shown = cli("status", env={"COLUMNS": str(width)}).stdout
    assert max(map(len, shown.splitlines())) <= width


def test_an_empty_store_and_a_missing_one_are_not_the_same(cli, store):
    assert "No run in" in cli("status").stdout
    missing = cli("status", "--store", "nowhere")
    assert missing.returncode == 2 and "There is no store at" in missing.stderr
    assert json.loads(cli("status", "--json").stdout) == []


def test_a_damaged_run_is_named_and_the_others_are_listed(cli, store):
    add_run(store, "icarl")
    broken = add_run(store, "replay")
    (broken.path / "phases.jsonl").write_text("{{\n")
    done = cli("status", "--json")
    assert [run["method"] for run in json.loads(done.stdout)] == ["icarl"]
    assert broken.path.name in done.stderr
