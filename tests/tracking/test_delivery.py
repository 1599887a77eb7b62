"""A run folder in, one MLflow run out: what is shown, under which times, and never twice."""

import json
import os
from pathlib import Path

import pytest
from mlflow_sides import Shown
from run_factory import PHASES, START_MS, accuracy, add_phase, end_run, finish_run, start_run

from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.tracking import Tracker


def test_each_phase_is_one_step_under_the_time_of_its_record(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = start_run(store, seed=0)
    assert tracker.deliver(run, "running")
    for phase in range(PHASES):
        add_phase(run, phase)
        assert tracker.deliver(run, "running")
    points = shown.points("icarl s0")
    for phase in range(PHASES):
        assert points["phase/acc_total", phase] == (accuracy(0, phase), START_MS + 60_000 * (phase + 1))
        assert points["cost/train_s", phase] == (3.25, START_MS + 60_000 * (phase + 1))
    assert ("phase/forgetting", 0) not in points  # undefined there, so absent: not zero
    assert points["phase/forgetting", 2][0] == 8.0
    assert shown.status("icarl s0") == "RUNNING"


def test_final_numbers_are_shown_once_at_step_zero(store: Store, tracker: Tracker, shown: Shown) -> None:
    run = finish_run(store, seed=0)
    assert tracker.deliver(run, "finished")
    final = {key: point for key, point in shown.points("icarl s0").items() if key[0].startswith("final/")}
    last_ms = START_MS + 60_000 * PHASES
    assert final == {
        ("final/avg_acc_total", 0): (pytest.approx(73.0), last_ms),
        ("final/last_acc_total", 0): (66.0, last_ms),
    }
    assert shown.status("icarl s0") == "FINISHED"


def test_telling_everything_again_adds_no_row(store: Store, tracker: Tracker, shown: Shown) -> None:
    run = finish_run(store, seed=0)
    tracker.deliver(run, "finished")
    before = shown.row_counts()
    tags = shown.tags("icarl s0")
    assert tracker.deliver(run, "finished")
    assert Tracker(tracker.settings, store, print).deliver(run, "finished")
    assert shown.row_counts() == before
    assert shown.tags("icarl s0") == tags


def test_phases_that_were_missed_are_delivered_with_the_next_one(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = start_run(store, seed=0)
    add_phase(run, 0)
    tracker.deliver(run, "running")
    add_phase(run, 1)
    add_phase(run, 2)
    tracker.deliver(run, "running")
    assert {step for key, step in shown.points("icarl s0") if key == "phase/acc_total"} == {0, 1, 2}


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(store: Store, tracker: Tracker, shown: Shown) -> None:
    run = start_run(store, seed=0)
    add_phase(run, 0)
    tracker.deliver(run, "interrupted")
    assert shown.status("icarl s0") == "KILLED"
    first = shown.run_id("icarl s0")
    again = Tracker(tracker.settings, store, print)
    again.deliver(run, "running")
    assert shown.status("icarl s0") == "RUNNING"
    add_phase(run, 1)
    add_phase(run, 2)
    end_run(run)
    again.deliver(run, "finished")
    assert shown.run_id("icarl s0") == first
    assert shown.status("icarl s0") == "FINISHED"
    assert len(shown.points("icarl s0")) == 3 * 4 + 2 + 2


def test_a_run_trained_anew_under_the_same_key_replaces_the_old_one_instead_of_a_zigzag(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = finish_run(store, seed=0)
    tracker.deliver(run, "finished")
    first = shown.run_id("icarl s0")
    (run.path / "phases.jsonl").unlink()
    run.append_record(PhaseRecord(phase=0, time_ms=START_MS + 5, metrics={"phase/acc_total": 12.0}))
    run.set_state("running")
    assert tracker.deliver(run, "running")
    assert shown.points("icarl s0") == {("phase/acc_total", 0): (12.0, START_MS + 5)}
    assert shown.tags("icarl s0")["imbcil.supersedes"] == first


def test_names_tags_params_and_dataset_say_what_was_trained(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = finish_run(store, seed=1, method="icarl+balanced_softmax")
    tracker.deliver(run, "finished")
    name = "icarl+balanced_softmax s1"
    tags, params = shown.tags(name), shown.params(name)
    expected = {"method": "icarl+balanced_softmax", "plugin": "balanced_softmax", "dataset": "glyphs6-lt"}
    expected |= {"protocol": "lfs-3", "recipe": "quick", "seed": "1", "digest": "3f9a1c22d0ab", "recon": "no"}
    expected |= {"imbcil.role": "run", "imbcil.run_key": run.path.name, "upper_bound": "no"}
    expected |= {"mlflow.user": "imbcil", "mlflow.source.name": "imbcil-bench"}
    assert tags.items() >= expected.items()
    assert tags["mlflow.parentRunId"] == shown.run_id("icarl+balanced_softmax (mean)")
    assert params["train.lr"] == "0.1"
    assert params["icarl.temperature"] == "2.0"
    assert params["memory"] == "20/class"
    assert "seeds" not in params
    assert shown.query("SELECT name FROM experiments WHERE experiment_id > 0") == [("lfs-3 glyphs6-lt",)]
    assert shown.query("SELECT name, digest FROM datasets") == [
        ("glyphs6-lt", ("3f9a1c22d0ab" + "0" * 52)[:32])
    ]


def test_a_recipe_that_is_written_out_gives_params_by_the_names_that_set_takes(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    config = (
        "recipe:\n  name: quick\n  train: {epochs: 3, milestones: [1, 2]}\nset:\n  icarl.temperature: 2.0\n"
    )
    tracker.deliver(start_run(store, config=config), "running")
    params = shown.params("icarl s0")
    assert (params["train.epochs"], params["train.milestones"], params["recipe"]) == ("3", "[1, 2]", "quick")
    assert not [name for name in params if name.startswith(("set.", "recipe.")) or name == "name"]


def test_a_run_without_plug_ins_can_still_be_grouped_by_them(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    tracker.deliver(start_run(store, seed=0), "running")
    assert shown.tags("icarl s0")["plugin"] == "none"


def test_the_description_is_a_table_of_the_phases(store: Store, tracker: Tracker, shown: Shown) -> None:
    tracker.deliver(finish_run(store, seed=0), "finished")
    text = shown.tags("icarl s0")["mlflow.note.content"]
    assert "| 2 | 6 | 66.00 | 65.00 | 8.00 |" in text
    assert "`imbcil-bench run --protocol lfs --n-tasks 3 --method icarl --seed 0`" in text
    assert "Status: finished, 3 of 3 phases" in text


def test_a_failed_run_says_why(store: Store, tracker: Tracker, shown: Shown) -> None:
    run = start_run(store, seed=0)
    run.set_state("failed", "The loss term ce is not finite in phase 1, epoch 3.")
    tracker.deliver(run, "failed")
    assert shown.status("icarl s0") == "FAILED"
    assert (
        shown.tags("icarl s0")["imbcil.status_reason"]
        == "The loss term ce is not finite in phase 1, epoch 3."
    )


def artifacts(shown: Shown, name: str) -> dict[str, Path]:
    uri = shown.query("SELECT artifact_uri FROM runs WHERE run_uuid = ?", shown.run_id(name))[0][0]
    root = Path(uri.removeprefix("file://"))
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def test_artifacts_are_the_files_that_explain_a_run_and_no_scores(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = finish_run(store, seed=0)
    (run.path / "scores" / "phase-00.npz").write_bytes(b"large")
    tracker.deliver(run, "finished")
    found = artifacts(shown, "icarl s0")
    expected = {"README.md", "config.yaml", "scenario.json", "accuracy_matrix.csv", "per_class.csv"}
    assert set(found) == expected | {"figures/accuracy_matrix.png"}
    assert found["per_class.csv"].read_text() == (run.path / "per_class.csv").read_text()
    assert "imbcil-bench run --protocol lfs" in found["README.md"].read_text()
    assert store.root / "mlflow-artifacts" in found["README.md"].parents


def test_files_that_changed_or_vanished_are_sent_again(store: Store, tracker: Tracker, shown: Shown) -> None:
    run = start_run(store, seed=0)
    add_phase(run, 0)
    tracker.deliver(run, "running")
    artifacts(shown, "icarl s0")["config.yaml"].unlink()
    add_phase(run, 1)
    tracker.deliver(run, "running")
    found = artifacts(shown, "icarl s0")
    assert "config.yaml" in found
    assert found["per_class.csv"].read_text().splitlines()[1].startswith("1,0,")


def test_nothing_that_is_shown_names_a_folder_of_this_machine_or_a_password(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    home = "/home/somebody/secret folder"
    run = start_run(
        store,
        seed=0,
        method="/home/somebody/secret/mine.py+more",
        config=f"method: ['{home}/mine.py']\ndata_root: {home}/data\nserver: http://somebody:hunter2@host:5000/x\n",
        command=f"imbcil-bench run --store '{home}/store' --method '{home}/mine.py' --config={home.split()[0]}/c.yaml "
        "--tracking-uri http://somebody:hunter2@host:5000",
        settings={"mine.weights": f"{home}/w.safetensors"},
    )
    (run.path / "scenario.json").write_text(json.dumps({"order": f"{home}/order.yaml"}))
    run.set_state("failed", f"Cannot write {store.root}/runs/x: no space. Choose another --store.")
    assert tracker.deliver(run, "failed")
    texts = [str(row) for table in ("tags", "params", "experiment_tags", "datasets", "metrics") for row in
             shown.query(f"SELECT * FROM {table}")]  # fmt: skip
    texts += [str(row) for row in shown.query("SELECT name FROM runs UNION SELECT name FROM experiments")]
    texts += [path.read_text(errors="replace") for path in artifacts(shown, "mine.py+more s0").values()]
    for text in texts:
        for secret in (
            "somebody",
            "secret",
            "hunter2",
            str(store.root),
            str(Path.cwd()),
            os.uname().nodename,
        ):
            assert secret not in text, f"{secret} in {text}"
    assert shown.params("mine.py+more s0")["mine.weights"] == "w.safetensors"
    assert any("mine.py" in text for text in texts)


def test_names_that_mlflow_refuses_are_rewritten_and_long_values_cut_to_a_hash(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    run = start_run(store, seed=0, settings={"icarl.classes@x": list(range(3000))})
    add_phase(run, 0, **{"phase/nme+fc (50%)/acc_total": 3.0})
    assert tracker.deliver(run, "running")
    assert shown.points("icarl s0")["phase/nme_fc _50_/acc_total", 0][0] == 3.0
    assert shown.params("icarl s0")["icarl.classes_x"].startswith("sha256 ")


def test_a_further_attempt_is_a_run_of_its_own(store: Store, tracker: Tracker, shown: Shown) -> None:
    first = finish_run(store, seed=0)
    second = finish_run(store, seed=0, run_key=f"{first.path.name}-2", attempt=2)
    tracker.deliver(first, "finished")
    tracker.deliver(second, "finished")
    assert shown.tags("icarl s0 attempt 2")["imbcil.attempt"] == "2"
    assert shown.names() == ["icarl (mean)", "icarl s0", "icarl s0 attempt 2"]


def test_an_experiment_that_was_deleted_in_the_dashboard_is_restored(
    store: Store, tracker: Tracker, shown: Shown
) -> None:
    from mlflow import MlflowClient

    run = start_run(store, seed=0)
    tracker.deliver(run, "running")
    MlflowClient(tracker.settings.uri).delete_experiment("1")
    add_phase(run, 0)
    assert tracker.deliver(run, "running")
    assert shown.query("SELECT lifecycle_stage FROM experiments WHERE experiment_id = 1") == [("active",)]
    assert ("phase/acc_total", 0) in shown.points("icarl s0")


def test_a_damaged_run_folder_is_a_warning_and_no_exception(
    store: Store, tracker: Tracker, said: list[str]
) -> None:
    run = start_run(store, seed=0)
    (run.path / "run.json").write_text("{broken")
    assert not tracker.deliver(run, "running")
    assert not tracker.deliver(run, "running")
    assert len(said) == 1
    assert "run.json is damaged" in said[0]
