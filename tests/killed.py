"""Runs of the tiny scenario that end right after a save, as by SIGKILL, go on in a new process's place, and are held
against the run that nobody stopped."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import all_scores, tiny_runner

from imbcil.harness.runner import Runner


class Killed(Exception):
    """Stands in for SIGKILL: raised right after a checkpoint was written."""


def finished(method: str, store: Path, **options: Any) -> Runner:
    """A whole run, or what is left of one that was killed."""
    runner = tiny_runner(method, store, **options)
    runner.run()
    return runner


def finished_and_counted(method: str, store: Path, **options: Any) -> tuple[Runner, int]:
    """A whole run, and how often it would have saved with a save after every step. Nothing is written for the count."""
    runner = tiny_runner(method, store, every=0, **options)
    saves: list[object] = []
    runner.save = lambda context=None: saves.append(context)  # type: ignore[method-assign]
    runner.run()
    return runner, len(saves)


def kill_after(method: str, store: Path, stop_at: int, **options: Any) -> None:
    """A run killed after its `stop_at`-th save, the only one that is written."""
    runner = tiny_runner(method, store, every=0, **options)
    original, counted = runner.save, itertools.count(1)

    def save(context: Any = None) -> None:
        if next(counted) == stop_at:
            original(context)
            raise Killed

    runner.save = save  # type: ignore[method-assign]
    with pytest.raises(Killed):
        runner.run()


def assert_same_run(left: Runner, right: Runner) -> None:
    """Every score, weight and metric but the costs is the same to the bit."""
    mine, theirs = all_scores(left.s.folder), all_scores(right.s.folder)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert np.array_equal(value, theirs[name], equal_nan=True), name
    weights = right.learner.net.state_dict()
    for name, value in left.learner.net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for one, other in zip(left.s.folder.records(), right.s.folder.records(), strict=True):
        assert without_costs(one.metrics) == without_costs(other.metrics)


def without_costs(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics of a phase that a second run must reproduce."""
    return {name: value for name, value in metrics.items() if not name.startswith("cost/")}
