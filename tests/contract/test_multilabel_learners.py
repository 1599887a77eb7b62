"""The contract with several labels an image, checked on every learner that takes them: hidden labels above all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed import assert_same_run, finished, finished_and_counted, kill_after
from test_learners import allowed
from tiny import MULTI_TEST, SIZES, all_scores, tiny_multi_scenario, tiny_runner

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import learner_names, load_learner, load_plugin, plugin_names
from imbcil.harness.runner import Runner
from imbcil.harness.sweep import load_suite

NAMES = [name for name in learner_names() if "multi" in load_learner(name).needs.labels]
TEACHES = [name for name in NAMES if load_learner(name).needs.teacher]
MEASURED_BY_THE_HARNESS = ("phase/relabel_", "phase/pseudo_")  # against the truth, which poison changes
CASES = [
    *((name, {}) for name in NAMES),
    *((name, {"labels.policy": "assume_negative"}) for name in ("finetune", "replay")),
    *((name, {"labels.policy": "pseudo_old"}) for name in TEACHES),
    ("rebll", {"rebll.when": "epoch", "rebll.quota": True, "rebll.exponent_kind": "adaptive"}),
    ("rebll", {"rebll.labels": "soft", "rebll.scope": "positive", "rebll.form": "exp"}),
]


def with_plugins() -> list[str]:
    """Every plug-in that takes several labels, with the first three learners that the rules allow, in turns."""
    methods = []
    for place, plugin in enumerate(plugin_names()):
        turned = NAMES[place % len(NAMES) :] + NAMES[: place % len(NAMES)]
        fitting = [name for name in turned if allowed(name, plugin, "multi")]
        methods += [f"{name}+{plugin}" for name in fitting[:3]]
    return [*methods, "icarl+more+asl" if "icarl" in NAMES else "replay+more+asl"]


def one_each() -> list[str]:
    """Every such plug-in with one learner that sees no more than others."""
    found = {
        method.split("+", 1)[1]: method
        for method in with_plugins()
        if not load_learner(method.split("+")[0]).needs.privileged
    }
    return list(found.values())


ONE_EACH = one_each()
SMALL = {  # for the clock's sake; and the tiny recipe's plain SGD cannot follow a weight of 1e5
    "krt": {"krt.embed": 16},
    "l3a": {"l3a.width": 32},
    "agcn": {"agcn.width": 8, "agcn.hidden": 16, "agcn.nodes": 10.0},
}


def small(name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "scenario": tiny_multi_scenario(),
        "settings": {**SMALL.get(name.split("+")[0], {}), **(settings or {})},
    }


def runner_of(name: str, store: Path, settings: dict[str, Any] | None = None, **options: Any) -> Runner:
    return tiny_runner(name, store, **small(name, settings), **options)


def poison(runner: Runner) -> None:
    """NaN, as each phase opens, in every cell that it does not show: all other images, the columns of other phases (which an
    image of several phases shows then) and ignored cells."""
    firewall = runner.s.firewall
    assert firewall is not None
    truth, opened = firewall._truth.clone(), firewall.open

    def open_poisoned(lo: int, hi: int, rows: torch.Tensor) -> None:
        firewall._truth = torch.full_like(truth, float("nan"))
        firewall._truth[rows, lo:hi] = truth[rows, lo:hi]
        firewall._truth[firewall._ignored] = float("nan")
        opened(lo, hi, rows)

    firewall.open = open_poisoned  # type: ignore[method-assign]


def test_the_suite_of_multi_label_tables_has_every_learner() -> None:
    rows = load_suite("mlcil").rows
    assert {row.method for row in rows} == set(NAMES)
    assert [row.set for row in rows if row.method == "rebll"] == [
        {"rebll.exponent": 0, "rebll.relabel": False},
        {},
    ]


@pytest.mark.parametrize(("name", "settings"), [*CASES, *((method, {}) for method in ONE_EACH)])
def test_poison_in_hidden_labels_changes_not_one_bit(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    if load_learner(name.split("+")[0]).needs.privileged:
        pytest.skip(f"{name} is an upper bound and sees all columns of seen classes")
    clean = runner_of(name, tmp_path / "clean", settings=settings)
    poisoned = runner_of(name, tmp_path / "poisoned", settings=settings)
    poison(poisoned)
    clean.run()
    poisoned.run()
    assert poisoned.s.firewall is not None
    assert bool(poisoned.s.firewall._truth.isnan().any())
    weights = poisoned.learner.net.state_dict()
    for key, value in clean.learner.net.state_dict().items():
        assert torch.equal(value, weights[key]), key
    for key, scores in all_scores(clean.s.folder).items():
        assert np.array_equal(scores, all_scores(poisoned.s.folder)[key]), key
    for mine, theirs in zip(clean.s.folder.records(), poisoned.s.folder.records(), strict=True):
        assert numbers(mine.metrics) == numbers(theirs.metrics)


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if not name.startswith(("cost/", *MEASURED_BY_THE_HARNESS))
    }


def test_poison_reaches_a_run_that_may_see_hidden_labels(tmp_path: Path) -> None:
    clean = runner_of("replay", tmp_path / "clean", settings={"labels.memory": "oracle_full"})
    poisoned = runner_of("replay", tmp_path / "poisoned", settings={"labels.memory": "oracle_full"})
    poison(poisoned)
    clean.run()
    poisoned.run()
    weights = poisoned.learner.net.state_dict()
    assert any(not torch.equal(value, weights[key]) for key, value in clean.learner.net.state_dict().items())


@pytest.mark.parametrize("memory", ["0", "4/class", "7"])
@pytest.mark.parametrize("name", NAMES)
def test_every_multi_label_learner_survives_the_tiny_scenario(name: str, memory: str, tmp_path: Path) -> None:
    if memory == "0" and load_learner(name).needs.memory == "required":
        with pytest.raises(BadInput, match="needs an exemplar memory"):
            runner_of(name, tmp_path, memory=memory)
        return
    runner = runner_of(name, tmp_path, memory=memory)
    runner.run()
    for record, classes in zip(runner.s.folder.records(), np.cumsum(SIZES), strict=True):
        assert all(np.isfinite(value) for value in record.metrics.values())
        assert "phase/map" in record.metrics
        stored = runner.s.folder.load_scores(record.phase)
        assert stored["test_targets"].shape == (len(MULTI_TEST), classes)
        for key, scores in stored.items():
            if key.startswith("test/"):
                assert scores.dtype == np.float32
                assert scores.shape == (len(MULTI_TEST), classes)
                assert np.isfinite(scores).all()
    held = runner.learner.memory
    assert len(held) <= {"0": 0, "4/class": 24, "7": 7}[memory]
    if len(held):
        assert held.extras["prov"].shape == held.extras["targets"].shape == (len(held), 6)


@pytest.mark.parametrize("name", NAMES)
def test_a_multi_label_run_killed_after_any_save_ends_bit_identical(name: str, tmp_path: Path) -> None:
    whole, saves = finished_and_counted(name, tmp_path / "whole", **small(name))
    for stop_at in sorted({max(int(saves * part), 1) for part in (0.3, 0.6, 0.9)}):
        store = tmp_path / f"killed-{stop_at}"
        kill_after(name, store, stop_at, **small(name))
        torch.manual_seed(stop_at)
        resumed = finished(name, store, **small(name))
        assert_same_run(whole, resumed)
        for key, column in whole.learner.memory.extras.items():
            assert torch.equal(column.nan_to_num(-9), resumed.learner.memory.extras[key].nan_to_num(-9)), key


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_older_classes_do_not_change_when_the_network_grows(name: str, tmp_path: Path) -> None:
    runner = runner_of(name, tmp_path)
    runner._run_phase()
    net = runner.learner.net.eval()
    images = runner.s.train_bank.test_images(torch.arange(8))
    before = net(images).logits
    net.grow(2)
    after = net.eval()(images).logits
    assert after.shape == (8, 5)
    torch.testing.assert_close(after[:, :3], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", with_plugins())
def test_a_plug_in_with_several_labels_gives_finite_numbers_and_resumes_bit_identical(
    method: str, tmp_path: Path
) -> None:
    whole, saves = finished_and_counted(method, tmp_path / "whole", **small(method))
    for record in whole.s.folder.records():
        assert all(np.isfinite(value) for value in record.metrics.values())
    kill_after(method, tmp_path / "killed", saves // 2, **small(method))
    assert_same_run(whole, finished(method, tmp_path / "killed", **small(method)))


@pytest.mark.parametrize("plugin", plugin_names())
def test_every_multi_label_plug_in_is_tried_on_three_learners(plugin: str) -> None:
    tried = [method for method in with_plugins() if plugin in method.split("+")[1:]]
    assert len(tried) >= 3 or "multi" not in load_plugin(plugin).labels
