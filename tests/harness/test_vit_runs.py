"""Transformers in whole runs: what rests stays at rest, and a run that was stopped ends bit-identical."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import all_scores, tiny_runner

from imbcil.harness.network.adapters import adapters_of
from imbcil.harness.runner import Runner


def recipe(**options: Any) -> dict[str, Any]:
    shape = {"size": 8, "depth": 3, **options}
    return {
        "backbone": {"name": "vit_tiny", "options": shape},
        "train": {"epochs": 1, "batch": 8, "lr": 0.05, "weight_decay": 5e-4},
    }


def test_a_run_trains_adapters_and_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    before = tiny_runner("icarl", tmp_path / "before", recipe=recipe(lora_rank=2))
    before._build_network()
    after = tiny_runner("icarl", tmp_path / "after", recipe=recipe(lora_rank=2))
    after.run()
    start, end = before.learner.net.backbones[0], after.learner.net.backbones[0]
    trained = {name for name, _ in end.named_parameters()}
    for name, value in end.state_dict().items():
        assert torch.equal(value, start.state_dict()[name]) == (name not in trained), name
    assert all(adapter.up.any() for adapter in adapters_of(end).values())


class Killed(Exception):
    """Stands in for SIGKILL: raised right after a checkpoint was written."""


def killed_after(saves: int, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    original, count = runner.save, [0]

    def save(*arguments: Any) -> None:
        original(*arguments)
        count[0] += 1
        if count[0] == saves:
            raise Killed

    monkeypatch.setattr(runner, "save", save)
    with pytest.raises(Killed):
        runner.run()


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["all", "adapters"])
def test_a_run_of_a_transformer_that_was_killed_ends_bit_identical(options, tmp_path, monkeypatch) -> None:
    whole = tiny_runner("podnet", tmp_path / "whole", recipe=recipe(**options))
    whole.run()
    store = tmp_path / "killed"
    killed_after(7, tiny_runner("podnet", store, recipe=recipe(**options), every=0), monkeypatch)
    resumed = tiny_runner("podnet", store, recipe=recipe(**options))
    resumed.run()
    want, got = all_scores(whole.s.folder), all_scores(resumed.s.folder)
    assert want.keys() == got.keys()
    assert all((want[name] == got[name]).all() for name in want)
    for name, value in whole.learner.net.state_dict().items():
        assert torch.equal(value, resumed.learner.net.state_dict()[name]), name
