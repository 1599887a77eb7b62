"""A learner's own mistakes: one sentence with its line, a run that says it failed, the traceback in its log."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_suite import Listener, request
from tiny import tiny_scenario

import imbcil.harness.planning as planning
from imbcil.harness.base.errors import BadInput, ContractViolation, ImbcilError
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.suite import run_request

HEAD = "import torch\nfrom imbcil.harness.contract import Learner\n\nclass Mine(Learner):\n"


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario is the tiny one."""
    monkeypatch.setattr(planning, "build_scenario", lambda settings, data_root=None: tiny_scenario())


def mine(folder: Path, body: str) -> str:
    """A user's file whose class has `body`."""
    file = folder / "mine.py"
    file.write_text(HEAD + "\n".join(f"    {line}" for line in body.splitlines()) + "\n")
    return str(file)


def run(folder: Path, body: str, **changes: Any) -> tuple[RunFolder, ImbcilError | None, list[str]]:
    """Train a user's file; its folder, what was raised, what was said."""
    view = Listener()
    asked = request(folder / "store", method=(mine(folder, body), "replay"), seeds=(0,), **changes)
    raised = None
    try:
        run_request(asked, view)
    except ImbcilError as error:
        raised = error
    runs = {run.info().method: run for run in Store(folder / "store").runs()}
    return runs["mine"], raised, view.said


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def loss(self, batch, out):\n    return None", "has to be a dict of named terms"),
        ("def loss(self, batch, out):\n    return out.logits.sum()", "not Tensor"),
        ("def loss(self, batch, out):\n    return {}", "has no term"),
        ("def loss(self, batch, out):\n    return {'ce': out.logits}", "the loss term 'ce'"),
        ("def loss(self, batch, out):\n    return {'ce': out.logits.sum().detach()}", "depends on what the stage"),
        ("def loss(self, batch, out):\n    return {'ce': (out.logits - out.features).sum()}",
         "mine broke in phase 1 of 3, epoch 1, step 0: mine.py, line 6: RuntimeError: the size of tensor a"),
        ("def begin_phase(self, phase):\n    pass", "mine broke in phase 1 of 3"),
        ("def stages(self, phase):\n    return None", "TypeError"),
        ("def begin_phase(self, phase):\n    phase.past", "mine.py, line 6: PermissionError: past data"),
        ("def begin_phase(self, phase):\n    raise SystemExit(3)", "mine.py, line 6: SystemExit: 3"),
    ],
)  # fmt: skip
def test_a_mistake_before_anything_is_trained_is_bad_input(tmp_path: Path, body: str, sentence: str) -> None:
    folder, raised, _ = run(tmp_path, body)
    assert isinstance(raised, ContractViolation)
    assert sentence.lower() in str(raised).lower()
    assert len(str(raised).splitlines()) == 1
    assert folder.state().status == "failed"
    assert folder.state().reason == str(raised)


LATE = [
    ("def loss(self, batch, out):\n    return {'ce': out.logits.mean() + (1 / (1 - batch.epoch))}",
     "mine.py, line 6: ZeroDivisionError: division by zero"),
    ("def scores(self, images):\n    return {'fc': torch.zeros(len(images), 9)}", "are [12, 9]; wanted are [12, 3]"),
    ("def scores(self, images):\n    return {'fc': super().scores(images)['fc'] * float('nan')}", "hold NaN"),
    ("def scores(self, images):\n    return {}", "names no predictor"),
    ("def end_phase(self, phase):\n    self.state['seen'] = {1, 2}", "state.learner.seen is a set"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sentence"), LATE)
def test_a_mistake_under_way_fails_that_run_and_the_next_one_is_trained(
    tmp_path: Path, body: str, sentence: str
) -> None:
    folder, raised, said = run(tmp_path, body)
    assert raised is None
    reason = folder.state().reason
    assert sentence in reason
    assert re.search(
        r"phase [12] of 3", reason
    )  # what a phase leaves behind is saved as the next one's start
    assert reason in said
    states = [found.state().status for found in Store(tmp_path / "store").runs()]
    assert sorted(states) == ["failed", "finished"]


def test_the_traceback_of_an_unforeseen_error_is_in_the_log_alone(tmp_path: Path) -> None:
    folder, _, said = run(tmp_path, LATE[0][0])
    log = folder.log_path.read_text()
    assert "Traceback (most recent call last)" in log
    assert "ZeroDivisionError" in log
    assert f"The traceback is in runs/{folder.path.name}/log.txt." in folder.state().reason
    assert not any("Traceback (most" in text for text in said)


def test_an_error_of_this_programs_own_learner_is_no_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imbcil.baselines.finetune import Finetune

    def broken(self: object, batch: object, out: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(Finetune, "loss", broken, raising=False)
    outcome = run_request(request(tmp_path, seeds=(0,)), Listener())
    assert [run.state().status for run in outcome.runs] == ["failed", "finished"]
    assert "test_run_failure.py" in outcome.failures[0]
    assert "LookupError: a bug" in outcome.failures[0]


def test_a_file_that_ends_the_program_or_has_no_settings_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "leaves.py"
    file.write_text("raise SystemExit(3)\n")
    with pytest.raises(BadInput, match=r"leaves\.py, line 1: SystemExit: 3"):
        run_request(request(tmp_path, method=(str(file),)), Listener())
    with pytest.raises(BadInput, match=r"Mine\.Config has to be"):
        run_request(request(tmp_path, method=(mine(tmp_path, "Config = dict"),)), Listener())
