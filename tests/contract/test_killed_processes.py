"""Real processes, killed with SIGKILL at random moments: the same command goes on and ends bit-identical.

And the test is itself tested: with the optimiser's momentum left out of the checkpoint it fails.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import assert_same_run, finished, kill_after, without_costs
from tiny import all_scores, tiny_runner

from imbcil.harness.optimiser import NamedOptimiser
from imbcil.harness.store.run_folder import RunFolder

LEARNERS = ("finetune", "replay", "icarl", "gradient_reweighting")
KILLS = 5  # of each learner's process
RECIPE = {"train": {"epochs": 60, "batch": 8, "lr": 0.05, "schedule": "cosine", "weight_decay": 5e-4}}
CHILD = f"""
import sys, threading
import torch
torch.set_num_threads(1)
from pathlib import Path
from types import SimpleNamespace
from tiny import tiny_runner
runner = tiny_runner(sys.argv[1], Path(sys.argv[2]), recipe={RECIPE!r}, every=0)
quiet = lambda *_: None
started = lambda info, place: print("at", place or "the beginning", flush=True)
runner.s.view = SimpleNamespace(message=quiet, warning=quiet, run_started=started, epoch=quiet, phase_finished=quiet)
save = runner.save
def told(context=None):
    save(context)
    if context is not None:
        print("saved inside an epoch", flush=True)
runner.save = told
runner.run()
"""


def start(method: str, store: Path) -> tuple[subprocess.Popen[str], str]:
    """A training process, and where it says that it goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, method, str(store)],
        cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def folder_of(store: Path) -> RunFolder:
    return RunFolder(next((store / "runs").iterdir()))


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_bit_identical(tmp_path: Path) -> None:
    moments = random.Random(20)
    places: list[str] = []
    for method in LEARNERS:
        whole, _ = start(method, tmp_path / method / "whole")
        assert whole.communicate() and whole.returncode == 0
        killed = tmp_path / method / "killed"
        for _ in range(KILLS):
            process, place = start(method, killed)
            assert process.stdout is not None
            process.stdout.readline()  # so that every life gets somewhere, however busy the machine is
            time.sleep(moments.uniform(0, 0.3))
            assert process.poll() is None, "the process was done before it could be killed"
            process.kill()
            process.wait()
            places.append(place)
        process, place = start(method, killed)
        places.append(place)
        assert process.communicate() and process.returncode == 0
        left, right = folder_of(tmp_path / method / "whole"), folder_of(killed)
        scores = all_scores(right)
        assert len(left.records()) == 3
        for name, value in all_scores(left).items():
            assert np.array_equal(value, scores[name]), f"{method}: {name}"
        for mine, theirs in zip(left.records(), right.records(), strict=True):
            assert without_costs(mine.metrics) == without_costs(theirs.metrics)
    resumes = [place for place in places if place != "at the beginning"]
    inside = [place for place in resumes if "epoch" in place and not place.endswith("step 0")]
    assert len(places) - len(LEARNERS) == KILLS * len(LEARNERS) >= 20
    assert len(inside) >= len(resumes) / 2, places


def test_momentum_left_out_of_the_checkpoint_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished("replay", tmp_path / "whole")
    monkeypatch.setattr(NamedOptimiser, "to_state", lambda self: {})
    kill_after("replay", tmp_path / "killed", 4)  # inside the first epoch
    with pytest.raises(AssertionError):
        assert_same_run(whole, finished("replay", tmp_path / "killed"))


def test_an_accumulator_set_to_zero_is_noticed(tmp_path: Path) -> None:
    whole = finished("gradient_reweighting", tmp_path / "whole")
    kill_after("gradient_reweighting", tmp_path / "killed", 4)
    runner = tiny_runner("gradient_reweighting", tmp_path / "killed")
    original = runner._run_phase

    def emptied() -> None:
        runner.learner.state["phi"].zero_()
        runner._run_phase = original  # type: ignore[method-assign]
        original()

    runner._run_phase = emptied  # type: ignore[method-assign]
    runner.run()
    with pytest.raises(AssertionError):
        assert_same_run(whole, runner)


def test_the_number_of_threads_comes_back_with_the_checkpoint(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        kill_after("finetune", tmp_path, 3)
        torch.set_num_threads(2)
        finished("finetune", tmp_path)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
