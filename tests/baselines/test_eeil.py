"""EEIL: which heads are distilled in which stage, both forms of it, and the balanced set."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steps import batch_of, begun, outputs
from tiny import tiny_runner

from imbcil.baselines.eeil import binary_distillation
from imbcil.harness.contract import Phase
from imbcil.harness.memory import herding
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner

Z = torch.randn(7, 6, generator=torch.Generator().manual_seed(5))
TAUGHT = torch.randn(7, 6, generator=torch.Generator().manual_seed(6))
TASKS = [slice(0, 3), slice(3, 4), slice(4, 6)]


def kd_columns(runner: Runner, phase: Phase, stage: int) -> set[int]:
    """The logits that the stage's distillation pulls on."""
    learner = runner.learner
    batch = batch_of(runner, phase.memory + phase.new)
    chosen = learner.stages(phase)[stage]
    if chosen.begin:
        chosen.begin()
    z = torch.randn(len(batch.targets), 6, requires_grad=True)
    terms = (chosen.loss or learner.loss)(batch, outputs(z))
    pulled = torch.autograd.grad(terms["kd"], z)[0].abs().sum(0)
    return {int(column) for column in torch.nonzero(pulled > 1e-9)}


def test_all_old_heads_are_distilled_and_the_newest_too_while_fine_tuning(tmp_path: Path) -> None:
    runner, phase = begun(
        "eeil", tmp_path, phase=2
    )  # tasks of 3, 1 and 2 classes; one class cannot be pulled
    assert kd_columns(runner, phase, 0) == {0, 1, 2}
    assert kd_columns(runner, phase, 1) == {0, 1, 2, 4, 5}


def test_off_by_one_leaves_the_latest_head_out_of_both_stages(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path, phase=2, settings={"eeil.heads": "off_by_one"})
    assert kd_columns(runner, phase, 0) == {0, 1, 2}  # of the first two tasks only the first
    assert kd_columns(runner, phase, 1) == {0, 1, 2}
    earlier, first = begun("eeil", tmp_path / "first", phase=1, settings={"eeil.heads": "off_by_one"})
    batch = batch_of(earlier, first.memory + first.new)
    z = torch.randn(len(batch.targets), 4, requires_grad=True)
    assert float(earlier.learner.loss(batch, outputs(z))["kd"].detach()) == 0  # none at all at t = 1
    assert float(earlier.learner.tuning_loss(batch, outputs(z))["kd"].detach()) != 0


def test_the_newest_head_follows_the_network_as_it_was_before_fine_tuning(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path, phase=2)
    learner, batch = runner.learner, batch_of(runner, phase.memory + phase.new)
    learner.copy_before_tuning()
    before = learner.state["before_tuning"]
    assert not before.training and before is not learner.net
    out = outputs(torch.randn(len(batch.targets), 6))
    with torch.no_grad():
        old = learner.state["old"](batch.images).logits.double()
        new = before(batch.images).logits[:, 4:].double()
    exact = out.logits.double()
    expected = 0.0
    for teacher, columns in ((old[:, :3], slice(0, 3)), (new, slice(4, 6))):
        expected -= float(((teacher / 2).softmax(1) * (exact[:, columns] / 2).log_softmax(1)).sum(1).mean())
    found = learner.tuning_loss(batch, out)
    assert found["kd"].item() == pytest.approx(expected, rel=1e-5)
    ce = -exact.log_softmax(1)[torch.arange(len(exact)), batch.targets].mean()
    assert found["ce"].item() == pytest.approx(float(ce), rel=1e-5)


def test_binary_distillation_is_the_mean_binary_cross_entropy_of_softened_probabilities() -> None:
    expected = 0.0
    for task in TASKS:
        p, q = (
            np.exp(z[:, task].double().numpy() / 2)
            / np.exp(z[:, task].double().numpy() / 2).sum(1, keepdims=True)
            for z in (Z, TAUGHT)
        )
        if task.stop - task.start > 1:  # one class has probability one on both sides
            expected += float(-(q * np.log(p) + (1 - q) * np.log(1 - p)).mean())
    assert float(binary_distillation(Z, TAUGHT, TASKS, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_the_balanced_set_is_the_memory_and_as_many_herded_rows_of_each_new_class(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path, phase=2, memory="3/class")
    pool = runner.learner.balanced(phase)
    assert pool.counts(6).tolist() == [3, 3, 3, 3, 2, 3]
    assert torch.equal(pool[pool.slot >= 0].index, phase.memory.index)
    features = runner.learner.tools.sweep(phase.new).features
    rows = phase.new.rows_by_class()[5]
    herded = phase.new.index[rows[herding(features[rows], 3)]]
    assert torch.equal(pool.index[pool.quota == 5], herded)


def test_the_released_set_is_random_and_as_large_as_the_whole_memory(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path, phase=2, memory="2/class", preset="released")
    pool = runner.learner.balanced(phase)
    assert int((pool.slot < 0).sum()) == len(phase.memory) == 8
    assert torch.equal(pool.index, runner.learner.balanced(phase).index)


def test_the_copy_is_gone_after_the_phase_and_all_weights_move_in_the_second_stage(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path)
    before = {name: value.clone() for name, value in runner.learner.net.named_parameters()}
    stages = runner.plugins.stages(phase, runner.learner)
    runner._run_stage(phase, stages[1])
    assert all(not torch.equal(value, before[name]) for name, value in runner.learner.net.named_parameters())
    assert "before_tuning" in runner.learner.state
    runner.learner.end_phase(phase)
    assert "before_tuning" not in runner.learner.state


@pytest.mark.parametrize(
    ("preset", "rates"),
    [("sound", {0: 0.005, 9: 0.005, 10: 0.0005, 29: 0.00005}), ("released", {0: 0.0005, 39: 0.0005})],
)
def test_the_second_stage_has_the_schedule_of_paper_or_port(
    preset: str, rates: dict[int, float], tmp_path: Path
) -> None:
    runner, phase = begun("eeil", tmp_path, preset=preset)
    optim = runner.learner.stages(phase)[1].optim
    assert optim.epochs == max(rates) + 1
    for epoch, rate in rates.items():
        assert optim.lr * optim.lr_scale(epoch) == pytest.approx(rate)


def test_the_first_phase_has_one_stage(tmp_path: Path) -> None:
    runner, phase = begun("eeil", tmp_path, phase=0)
    assert [stage.name for stage in runner.learner.stages(phase)] == ["train"]
    assert len(tiny_runner("eeil", tmp_path / "none", memory="0").run()) == 3


@pytest.mark.parametrize(
    ("preset", "epochs", "marks", "rates"),
    [
        ("released", 160, [80, 120], {0: 1e-3, 39: 1e-3}),
        ("released", 90, [30, 60], {0: 1e-3, 29: 1e-3, 30: 1e-4, 39: 1e-4}),
        ("sound", 90, [30, 60], {0: 1e-2, 9: 1e-2, 10: 1e-3, 20: 1e-4, 29: 1e-4}),
    ],
)
def test_the_ports_second_stage_obeys_the_schedule_of_the_first_and_the_papers_has_its_own(
    preset: str, epochs: int, marks: list[int], rates: dict[int, float], tmp_path: Path
) -> None:
    """On ImageNet-Subset (90 epochs, a tenth after 30 and 60) one fall lies inside the port's 40; on CIFAR none does."""
    train = {"epochs": epochs, "lr": 0.1, "schedule": "multistep", "milestones": marks}
    runner = tiny_runner("eeil", tmp_path, preset=preset, recipe={"train": train})
    phase: Phase = SimpleNamespace(index=1, memory=Pool.empty(), new=Pool.empty())  # type: ignore[assignment]
    optim = runner.learner.stages(phase)[1].optim
    assert optim.epochs == max(rates) + 1
    found = {epoch: optim.lr * optim.lr_scale(epoch) for epoch in rates}
    assert found == pytest.approx(rates)
