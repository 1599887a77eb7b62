"""IL2M: the statistics against plain loops, when scores are rescaled, and the guard."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from steps import outputs
from tiny import tiny_runner

from imbcil.baselines.il2m import class_scores, new_confidence, rectification
from imbcil.harness.batch import Sweep
from imbcil.harness.pools import Pool

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [4.0, 1.0, 6.0], [0.0, 3.0, 5.0], [1.0, -1.0, 2.0]])
TARGETS = torch.tensor([0, 0, 2, 2])


def sweep() -> Sweep:
    return Sweep(Pool.of_new(torch.arange(4), TARGETS), LOGITS, LOGITS, TARGETS)


def test_a_class_score_is_the_mean_of_its_own_logit_on_its_own_rows() -> None:
    means = class_scores(sweep(), 3)
    assert means[0] == 3.0 and math.isnan(means[1]) and means[2] == 3.5


def test_confidence_is_the_mean_highest_logit_on_new_rows_whatever_class_it_is() -> None:
    assert float(new_confidence(sweep(), 1)) == (5 + 2) / 2
    assert float(new_confidence(sweep(), 0)) == (2 + 6 + 5 + 2) / 4
    assert math.isnan(new_confidence(sweep(), 3))


def test_factors_are_the_two_ratios_multiplied() -> None:
    factors, kept = rectification(
        torch.tensor([6.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 8.0]), torch.tensor(4.0), 0.01
    )
    assert factors.tolist() == pytest.approx([6 / 3 * 4 / 5, 2 / 4 * 4 / 8]) and kept == 0


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("bad", [-1.0, 0.0, 1e-9, math.nan])
def test_a_mean_near_or_below_zero_or_unknown_leaves_the_class_alone_and_is_counted(
    place: int, bad: float
) -> None:
    values = [torch.tensor([2.0, 2.0]) for _ in range(3)]
    confidence = torch.tensor(2.0)
    if place == 3:
        confidence = torch.tensor(bad)
    else:
        values[place][1] = bad
    factors, kept = rectification(values[0] * 3, *values[1:], confidence, 0.01)
    if place == 3:
        assert factors.tolist() == [1, 1] and kept == 2
    else:
        assert factors.tolist() == pytest.approx([3, 1]) and kept == 1


def test_scores_change_only_where_the_best_class_is_new(tmp_path: Path) -> None:
    runner = tiny_runner("il2m", tmp_path)
    runner.run()
    net = runner.learner.net
    net.calibrator("il2m").set(a=torch.tensor([2.0, 3, 4, 5, 1, 1]))
    raw = torch.tensor([[1.0, 1, 1, 1, 9, 1], [1.0, 1, 1, 9, 2, 1]])  # best: a new class, an old one
    rescaled = net.calibrated(outputs(raw), "test")
    assert rescaled.tolist() == [[2, 3, 4, 5, 9, 1], raw[1].tolist()]
    for elsewhere in ("train", "teacher"):
        assert torch.equal(net.calibrated(outputs(raw), elsewhere), raw)


def test_the_factors_of_the_last_phase_have_no_say_while_the_next_one_trains(tmp_path: Path) -> None:
    """`two_stage` trains on the scores of tests: a new class that wins would meet old scores from another network."""
    runner = tiny_runner("il2m", tmp_path)
    for _ in range(2):
        runner._run_phase()
    net, raw = runner.learner.net, torch.tensor([[1.0, 1, 1, 2, 9, 1]])
    net.calibrator("il2m").set(a=torch.tensor([2.0, 3.0, 4.0, 1.0]))
    runner.learner.begin_phase(runner._phase_view())
    assert torch.equal(net.calibrated(outputs(raw), "test"), raw)


def test_what_a_run_stores_agrees_with_loops_over_its_rows(tmp_path: Path) -> None:
    runner = tiny_runner("il2m", tmp_path)
    runner._run_phase()
    first, confident = (runner.learner.state[name].clone() for name in ("first", "confident"))
    memory = runner.learner.memory.pool()
    runner._run_phase()  # one new class, number 3
    learner, phase = runner.learner, runner.s.scenario.phases[1]
    new = runner.s.train_bank.test_images(torch.from_numpy(phase.train))
    with torch.no_grad():
        z_old = learner.net.eval()(runner.s.train_bank.test_images(memory.index)).logits.double().numpy()
        z_new = learner.net(new).logits.double().numpy()
    labels = memory.quota.numpy()
    confidence = z_new.max(1).mean()
    a = learner.net.calibrator("il2m").vectors()[0].double().tolist()
    kept = 0
    for c in range(3):
        now = np.mean([z[c] for z, label in zip(z_old, labels, strict=True) if label == c])
        parts = [float(first[c]), now, float(confident[c]), confidence]
        kept += min(parts) <= 0.01
        factor = 1.0 if min(parts) <= 0.01 else parts[0] / parts[1] * parts[3] / parts[2]
        assert a[c] == pytest.approx(factor, rel=1e-4)
    assert a[3] == 1
    assert learner.state["first"].tolist() == pytest.approx([*first.tolist(), z_new[:, 3].mean()], rel=1e-4)
    assert learner.state["confident"].tolist() == pytest.approx([*confident.tolist(), confidence], rel=1e-4)
    assert runner.s.folder.records()[1].metrics["phase/il2m/not_rectified"] == kept
