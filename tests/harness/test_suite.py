"""Running what was asked for: one owner a run, nothing twice, failures and interruptions that lose nothing."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import all_scores, tiny_plan, tiny_scenario

import imbcil.harness.planning as planning
from imbcil.harness.base.errors import RunStopped
from imbcil.harness.request import RunRequest
from imbcil.harness.runner import Interrupted
from imbcil.harness.store.layout import Store
from imbcil.harness.suite import Outcome, run_request, train_run
from imbcil.harness.tracking import Tracker, resolve_tracking
from imbcil.harness.view import SilentView


class Listener(SilentView):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    warning = message


def trained(store: Path, view: Listener, stop: threading.Event | None = None, **options: Any) -> Outcome:
    """Train the tiny scenario's replay in `store` as `run` does, without tracking."""
    run, request = tiny_plan(options.pop("method", "replay"), store, **options)
    place = Store(store)
    tracker = Tracker(resolve_tracking(place, disabled=True), place, view.warning)
    outcome = Outcome(place, runs=[run.folder])
    train_run(run, request, view, tracker, outcome, stop)
    return outcome


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    view = Listener()
    folder = trained(tmp_path, view).runs[0]
    lines = (folder.path / "phases.jsonl").read_text()
    trained(tmp_path, view)
    assert (folder.path / "phases.jsonl").read_text() == lines
    assert any("is finished already" in text for text in view.said)
    assert folder.state().final["final/avg_acc_total"] > 0
    assert not list(folder.checkpoints.glob("[0-9]*"))
    assert (folder.figures / "accuracy_matrix.png").stat().st_size > 1000


def test_a_run_that_another_process_owns_is_left_to_it(tmp_path: Path) -> None:
    view = Listener()
    run, _ = tiny_plan("replay", tmp_path)
    with run.folder.owner_lock():
        outcome = trained(tmp_path, view)
    assert outcome.busy == [run.info.run_key]
    assert any("being trained by another process" in text for text in view.said)
    assert not run.folder.records()


def test_a_diverging_run_fails_names_its_place_and_can_go_on(tmp_path: Path) -> None:
    view = Listener()
    recipe = {"train": {"epochs": 4, "batch": 8, "lr": 1e20}}
    run, _ = tiny_plan("replay", tmp_path, recipe=recipe)
    with pytest.raises(
        RunStopped, match=r"loss term 'ce' of replay is not finite in phase [1-3] of 3, stage train, epoch \d"
    ):
        trained(tmp_path, view, recipe=recipe)
    state = run.folder.state()
    assert state.status == "failed"
    assert "not finite" in state.reason
    assert list(run.folder.checkpoints.glob("[0-9]*"))


def test_stopping_saves_the_place_and_the_same_command_ends_bit_identical(tmp_path: Path) -> None:
    view, stop = Listener(), threading.Event()
    whole = trained(tmp_path / "whole", view).runs[0]
    stop.set()
    with pytest.raises(Interrupted, match=r"phase 1 of 3, epoch 1, step 1"):
        trained(tmp_path / "stopped", view, stop)
    folder = trained(tmp_path / "stopped", view).runs[0]
    assert folder.state().status == "finished"
    for name, value in all_scores(whole).items():
        assert np.array_equal(value, all_scores(folder)[name]), name


def test_a_damaged_state_file_loses_no_finished_run(tmp_path: Path) -> None:
    folder = trained(tmp_path, Listener()).runs[0]
    final = folder.state().final
    (folder.path / "state.json").write_text("{ half")
    assert folder.state().status == "finished"
    assert folder.state().final == final


@pytest.fixture
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario is the tiny one, so that whole requests run in seconds."""
    monkeypatch.setattr(planning, "build_scenario", lambda settings, data_root=None: tiny_scenario())


def request(store: Path, **changes: Any) -> RunRequest:
    from tiny import RECIPE

    return RunRequest(**{"method": ("finetune", "replay"), "seeds": (0, 1), "recipe": RECIPE, "device": "cpu",
                         "precision": "fp32", "store": str(store), "no_tracking": True, **changes})  # fmt: skip


@pytest.mark.usefixtures("tiny_data")
def test_a_request_trains_every_method_with_every_seed_and_force_makes_a_new_attempt(tmp_path: Path) -> None:
    outcome = run_request(request(tmp_path), Listener())
    infos = [run.info() for run in outcome.runs]
    assert [(info.method, info.seed) for info in infos] == [
        ("finetune", 0),
        ("finetune", 1),
        ("replay", 0),
        ("replay", 1),
    ]
    assert len({info.run_key for info in infos}) == 4
    again = run_request(request(tmp_path, method=("replay",), seeds=(0,), force=True), Listener())
    assert again.runs[0].path.name == f"{infos[2].run_key}-2"
    assert again.runs[0].info().attempt == 2
    assert again.runs[0].state().final == outcome.runs[2].state().final


@pytest.mark.usefixtures("tiny_data")
def test_one_failed_run_does_not_keep_the_others_from_being_tried(tmp_path: Path) -> None:
    asked = request(tmp_path, seeds=(0,), set={"finetune.train.lr": 1e20, "finetune.train.epochs": 6})
    outcome = run_request(asked, Listener())
    assert [run.state().status for run in outcome.runs] == ["failed", "finished"]
    assert len(outcome.failures) == 1
