"""DER++, PRS and OCDM: stored logits, admission and eviction, and the label distribution of the memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steps import begun, outputs
from tiny import tiny_multi_scenario, tiny_runner

from imbcil.baselines.ocdm import divergence_without, nearest
from imbcil.baselines.prs import admitted, evicted, partitioned
from imbcil.harness.loop import StageContext, stored_extras, training_batch


def a_batch(name: str, store: Path, phase: int = 1) -> tuple[Any, Any]:
    """The learner and a batch with all its streams, as the loop would make it."""
    runner, view = begun(name, store, phase, scenario=tiny_multi_scenario())
    stage = runner.plugins.stages(view, runner.learner)[0]
    pool = stage.pool
    assert not callable(pool)
    context: Any = StageContext(
        runner.learner, runner.plugins, stage, pool, runner.s.train_bank, view.hi, (0, view.index, "train"),
        None, None, lambda _: None, lambda *_: None,
    )  # fmt: skip
    plan = stage.sampler.plan(pool, 8, torch.Generator().manual_seed(0))
    return runner.learner, training_batch(context, plan[0], 0, 0, len(plan), pool.counts(view.hi))


def test_der_pp_replays_logits_and_labels_from_two_draws(tmp_path: Path):
    learner, batch = a_batch("der_pp", tmp_path)
    assert set(batch.stream.tolist()) == {0, 1, 2}
    z = torch.randn(len(batch.stream), 4, generator=torch.Generator().manual_seed(4))
    terms = learner.loss(batch, outputs(z))
    first, stored = batch.stream == 1, batch.extras["logits"]
    assert stored.shape[1] == 3  # columns that came later are not there
    assert float(terms["logits"]) == pytest.approx(
        0.5 * float((z[first, :3] - stored[first]).square().mean()), rel=1e-5
    )
    second = batch.stream == 2
    p, y = z[second].double().sigmoid(), batch.targets[second].double()
    cells = -(y * p.log() + (1 - y) * (1 - p).log())
    assert float(terms["labels"]) == pytest.approx(0.5 * float(cells[batch.mask[second]].mean()), rel=1e-5)


def test_der_pp_keeps_the_logits_of_the_phase_in_which_a_row_was_stored(tmp_path: Path):
    runner = tiny_runner("der_pp", tmp_path, scenario=tiny_multi_scenario())
    runner._run_phase()
    memory = runner.learner.memory
    before = {int(i): row for i, row in zip(memory.index, memory.extras["logits"], strict=True)}
    runner._run_phase()
    for index, phase, row in zip(memory.index, memory.phase, memory.extras["logits"], strict=True):
        if phase == 0:
            assert torch.equal(row[:3], before[int(index)])
            assert bool(row[3:].isnan().all())
    assert stored_extras(runner.learner, torch.tensor([-1]), torch.device("cpu"))["logits"].isnan().all()


def test_prs_admits_by_the_softmax_of_minus_the_counts():
    seen, target = np.array([3.0, 1.0]), np.array([1.5, 2.0])
    weight = np.exp(-seen) / np.exp(-seen).sum()
    assert admitted(seen, target) == pytest.approx(weight[0] * 0.5 + weight[1] * 1.0)


def test_prs_evicts_the_row_that_leaves_the_nearest_distribution():
    labels = np.array([[1, 0], [1, 1], [1, 0], [0, 1]], dtype=bool)
    filled, share = labels.sum(axis=0).astype(float), np.array([0.5, 0.5])
    # class 0 has an excess of 0.5 and is drawn; rows 0 and 2 leave (2, 2), row 1 would leave (2, 1)
    assert evicted(labels, filled, share, 0.1) == 0


def test_prs_spares_rows_with_labels_that_the_memory_lacks():
    labels = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    filled, share = labels.sum(axis=0).astype(float), np.array([0.3, 0.3, 0.4])
    # classes 0 and 1 have an excess of 0.9 and class 2 lacks 1.8; of class 0's rows the first one alone has class 2
    assert evicted(labels, filled, share, 0.1) == 1


def by_hand(labels: np.ndarray, room: int, draws: np.ndarray, power: float) -> list[int]:
    """PRS's released code told again, one label and one row at a time."""
    classes, memory, seen = range(labels.shape[1]), list(range(room)), [0.0] * labels.shape[1]
    for row, (admission, eviction) in enumerate(draws):
        raised = [n**power if n else 0.0 for n in seen]
        share = [value / sum(raised) if sum(raised) else 0.0 for value in raised]
        own = [label for label in classes if labels[row, label]]
        chance = [1.0 if seen[c] <= room * share[c] else room * share[c] / seen[c] for c in own]
        soft = [np.exp(-seen[c]) for c in own]
        if row >= room and admission < sum(a * b for a, b in zip(chance, soft, strict=True)) / sum(soft):
            held = [sum(bool(labels[place, c]) for place in memory) for c in classes]
            excess = [held[c] - share[c] * sum(held) for c in classes]
            weight = [np.exp(excess[c]) if held[c] else 0.0 for c in classes]
            drawn = next(c for c in classes if sum(weight[: c + 1]) > eviction * sum(weight))
            lacks = {
                place: sum(excess[c] <= 0 and not labels[place, c] for c in classes)
                for place in memory
                if labels[place, drawn]
            }
            left = {}
            for place in (one for one in lacks if lacks[one] == max(lacks.values())):
                after = [held[c] - int(labels[place, c]) for c in classes]
                left[place] = sum(abs(after[c] - share[c] * sum(after)) for c in classes)
            memory[memory.index(min(left, key=lambda place: left[place]))] = row
        for c in own:
            seen[c] += 1
    return memory


def test_prs_is_the_released_rule_step_by_step():
    for seed in range(8):
        generator = np.random.default_rng(seed)
        labels, seen = long_tailed(60, 5, seed), np.zeros(5)
        draws = generator.random((60, 2))
        found = partitioned(labels, 0, 9, seen, draws, -0.03)
        assert sorted(found) == sorted(by_hand(labels, 9, draws, -0.03))


def long_tailed(rows: int, classes: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    chances = 0.5 * 0.8 ** np.arange(classes)
    labels = generator.random((rows, classes)) < chances
    labels[np.arange(rows), generator.choice(classes, rows, p=chances / chances.sum())] = True
    return labels


def tail_share(labels: np.ndarray) -> float:
    counts = labels.sum(axis=0)
    return float(counts[len(counts) // 2 :].sum() / counts.sum())


def test_prs_holds_more_of_the_tail_than_the_stream_has():
    labels, seen = long_tailed(3000, 10), np.zeros(10)
    draws = np.random.default_rng(1).random((3000, 2))
    rows = partitioned(labels, 0, 100, seen, draws, -0.03)
    assert len(rows) == len(set(rows)) == 100
    assert seen.tolist() == labels.sum(axis=0).tolist()
    assert tail_share(labels[rows]) > 1.5 * tail_share(labels)


def test_ocdm_removes_by_the_divergence_that_brute_force_finds():
    labels = long_tailed(40, 5).astype(float)
    target = np.array([0.4, 0.2, 0.2, 0.1, 0.1])
    filled = labels.sum(axis=0)
    for row, found in enumerate(divergence_without(labels, filled, target)):
        share = (filled - labels[row]) / (filled - labels[row]).sum()
        kept = share > 0
        assert found == pytest.approx((share[kept] * np.log(share[kept] / target[kept])).sum(), abs=1e-9)


def test_ocdm_comes_near_its_target():
    labels = long_tailed(400, 6)
    rows = nearest(
        labels,
        list(range(400)),
        30,
        labels.sum(axis=0).astype(float),
        0.0,
        np.random.default_rng(0).random(400),
    )
    share = labels[rows].sum(axis=0) / labels[rows].sum()
    assert len(rows) == 30
    assert np.abs(share - 1 / 6).max() < 0.06


@pytest.mark.parametrize("name", ["prs", "ocdm"])
def test_the_memory_is_offered_each_image_once_whatever_the_epochs(name: str, tmp_path: Path):
    def seen(epochs: int) -> torch.Tensor:
        runner = tiny_runner(
            name, tmp_path / str(epochs), scenario=tiny_multi_scenario(), settings={"train.epochs": epochs}
        )
        runner.run()
        assert len(runner.learner.memory) == 24
        return runner.learner.state["seen"]

    assert torch.equal(seen(1), seen(2))
    assert seen(1).tolist() == tiny_multi_scenario().raw_counts.tolist()
