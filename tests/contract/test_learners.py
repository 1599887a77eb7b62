"""The contract, checked on every registered learner and on compositions; a new file is covered once it exists."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed import assert_same_run, finished, finished_and_counted, kill_after
from tiny import LABELS, SIZES, tiny_plan, tiny_runner, tiny_scenario

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import learner_names, load_learner, load_plugin, plugin_names
from imbcil.harness.composition import check_composition
from imbcil.harness.network.network import Network
from imbcil.harness.settings import MemorySettings

NAMES = [name for name in learner_names() if "single" in load_learner(name).needs.labels]


CLOSELY = ("more", "two_stage")  # tried beside more learners than the others
PARTNERS = (
    "podnet",
    "foster",
    "eeil",
    "lucir",
    "gradient_reweighting",
    "bic",
    "icarl",
    "replay",
    "wa",
    "finetune",
)
TOGETHER = (
    "podnet+more+two_stage",
    "foster+more+two_stage",
    "icarl+more+balanced_softmax",
    "replay+mixup+more+focal",
)


def allowed(learner: str, plugin: str, labels: str = "single") -> bool:
    """Whether the rules let a learner and one plug-in be composed."""
    named = [(plugin, load_plugin(plugin))]
    try:
        check_composition(load_learner(learner), learner, named, MemorySettings(), labels)
    except BadInput:
        return False
    return True


def composable() -> list[str]:
    """Every learner alone, every plug-in with the first learners that the rules allow, and some longer chains."""
    methods = list(NAMES)
    for place, plugin in enumerate(plugin_names()):
        turned = PARTNERS[place % 3 :] + PARTNERS[: place % 3]
        fitting = [learner for learner in turned if allowed(learner, plugin)]
        methods += [f"{learner}+{plugin}" for learner in fitting[: 6 if plugin in CLOSELY else 3]]
    known = set(plugin_names())
    return methods + [method for method in TOGETHER if set(method.split("+")[1:]) <= known]


# Second stages have thirty epochs of their own; three show as much of the contract.
SHORT = {"learners": {
    "eeil": {"tuning_epochs": 3, "tuning_milestones": [1, 2]}, "crt": {"epochs": 3, "milestones": [1, 2]},
    "two_stage": {"epochs": 3},
}}  # fmt: skip
METHODS = composable()
WITH_OWN_STAGES = [
    method for method in METHODS if "+" not in method or method.endswith("+two_stage") or method in TOGETHER
]
MEMORIES = [
    (method, memory)
    for memory in ("0", "4/class", "7")
    for method in (METHODS if memory == "4/class" else WITH_OWN_STAGES)
]


@pytest.mark.parametrize(("method", "memory"), MEMORIES)
def test_every_method_survives_the_tiny_scenario(method: str, memory: str, tmp_path: Path) -> None:
    if memory == "0" and load_learner(method.split("+")[0]).needs.memory == "required":
        with pytest.raises(BadInput, match="needs an exemplar memory"):
            tiny_runner(method, tmp_path, memory=memory)
        return
    runner = finished(method, tmp_path, memory=memory, recipe=SHORT)
    records = runner.s.folder.records()
    assert [record.phase for record in records] == [0, 1, 2]
    for phase, (record, classes) in enumerate(zip(records, np.cumsum(SIZES), strict=True)):
        assert all(np.isfinite(value) for value in record.metrics.values())
        stored = runner.s.folder.load_scores(phase)
        predictors = [name for name in stored if name.startswith("test/")]
        assert predictors
        for name in predictors:
            assert stored[name].dtype == np.float32
            assert stored[name].shape == (4 * classes, classes)
            assert np.isfinite(stored[name]).all()
    quota = {"0": 0, "4/class": 4, "7": 1}[memory]
    assert max(runner.learner.memory.pool().counts(6).tolist()) <= quota


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_after_any_save_ends_bit_identical(method: str, tmp_path: Path) -> None:
    whole, saves = finished_and_counted(method, tmp_path / "whole", recipe=SHORT)
    fractions = (0.2, 0.45, 0.7, 0.95) if method in WITH_OWN_STAGES else (0.5,)
    for stop_at in sorted({max(int(saves * part), 1) for part in fractions}):
        store = tmp_path / f"killed-{stop_at}"
        kill_after(method, store, stop_at, recipe=SHORT)
        torch.manual_seed(stop_at)  # a resumed run must not lean on the global generator
        resumed = finished(method, store, recipe=SHORT)
        assert_same_run(whole, resumed)


@pytest.mark.parametrize("method", WITH_OWN_STAGES)
def test_stages_are_pure_and_change_only_what_they_declare(method: str, tmp_path: Path) -> None:
    runner = tiny_runner(method, tmp_path, recipe=SHORT)
    original = runner._run_stage

    def watched(phase: Any, stage: Any) -> None:
        again = runner.plugins.stages(phase, runner.learner)
        assert [part.name for part in again] == [
            part.name for part in runner.plugins.stages(phase, runner.learner)
        ]
        teachers = {name: value for name, value in runner.learner.state.items() if is_teacher(name, value)}
        before = {name: fingerprint(value) for name, value in teachers.items()}
        original(phase, stage)
        for name, value in teachers.items():
            assert fingerprint(value) == before[name], f"the stage {stage.name} changed the teacher {name}"

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()


def is_teacher(name: str, value: object) -> bool:
    return (
        isinstance(value, Network) and name != "net" and not any(p.requires_grad for p in value.parameters())
    )


def fingerprint(net: Network) -> float:
    return float(sum(value.double().abs().sum() for value in net.state_dict().values()))


@pytest.mark.parametrize("name", NAMES)
def test_growing_the_network_leaves_old_logits_alone(name: str, tmp_path: Path) -> None:
    net = finished(name, tmp_path).learner.net.eval()
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        before = net(images).logits
        net.grow(2)
        after = net(images).logits
    old = after[:, : before.shape[1]]
    assert torch.allclose(old, before, rtol=1e-6, atol=1e-6)  # a wider product is rounded in another order


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"{name}: unknown key 'no_such_setting'"):
        tiny_plan(name, tmp_path, settings={f"{name}.no_such_setting": 1})


@pytest.mark.parametrize("name", NAMES)
def test_old_images_are_reached_only_through_the_memory(name: str, tmp_path: Path) -> None:
    """Noise in place of the past images that were not kept must not change anything."""
    if load_learner(name).needs.privileged:
        pytest.skip(f"{name} is an upper bound and declares that it sees past data")
    plain = finished(name, tmp_path / "plain")
    runner = tiny_runner(name, tmp_path / "noise")
    original = runner._run_phase

    def overwritten() -> None:
        if runner.place.point == "start" and runner.place.phase:
            past = np.concatenate([phase.train for phase in runner.s.scenario.phases[: runner.place.phase]])
            gone = np.setdiff1d(past, runner.learner.memory.index.numpy())
            bank = runner.s.train_bank
            assert bank._held is not None
            bank._held[bank._place[torch.from_numpy(gone)]] = 127
        original()

    runner._run_phase = overwritten  # type: ignore[method-assign]
    runner.run()
    assert_same_run(plain, runner)


@pytest.mark.parametrize("plugin", plugin_names())
def test_every_plug_in_is_tried_on_three_learners(plugin: str) -> None:
    tried = [method for method in METHODS if plugin in method.split("+")[1:]]
    assert len(tried) >= 3 or "single" not in load_plugin(plugin).labels


def test_the_tiny_scenario_holds_the_hard_cases() -> None:
    scenario = tiny_scenario()
    assert min(len(phase.classes) for phase in scenario.phases) == 1
    assert scenario.raw_counts.min() < 4  # smaller than its quota
    assert sorted(LABELS) != list(range(len(LABELS)))  # a gap in the labels
