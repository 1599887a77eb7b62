"""Transformers in whole runs: what rests stays at rest, and a run that was stopped ends bit-identical."""

from pathlib import Path
from typing import Any

import pytest
import torch
from killed import assert_same_run, finished, kill_after
from tiny import tiny_runner

from imbcil.harness.network.adapters import adapters_of


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


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["all", "adapters"])
def test_a_run_of_a_transformer_that_was_killed_ends_bit_identical(
    options: dict[str, Any], tmp_path: Path
) -> None:
    whole = finished("podnet", tmp_path / "whole", recipe=recipe(**options))
    kill_after("podnet", tmp_path / "killed", 7, recipe=recipe(**options))
    assert_same_run(whole, finished("podnet", tmp_path / "killed", recipe=recipe(**options)))
