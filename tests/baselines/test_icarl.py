"""iCaRL: its three losses against plain float64, nearest means, and what the presets change."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steps import begun
from tiny import RECIPE, tiny_runner

from imbcil.harness.batch import Batch, Outputs, Sweep
from imbcil.harness.loop import StageContext
from imbcil.harness.nearest_mean import class_means
from imbcil.harness.pools import Pool

D = torch.float64
Z = torch.tensor([[1.0, -0.5, 2.0], [0.3, 0.8, -1.0]], dtype=D)
OLD = torch.tensor([[0.7, -1.2], [2.0, 0.1]], dtype=D)
Y = torch.tensor([2, 0])


def terms(tmp_path: Path, old_loss: str) -> dict[str, float]:
    """The learner's loss on fixed logits of three classes, two of them old."""
    learner = tiny_runner("icarl", tmp_path, settings={"icarl.old_loss": old_loss}).learner
    object.__setattr__(learner, "teacher_logits", lambda batch: OLD)
    batch: Batch = SimpleNamespace(targets=Y, images=None)  # type: ignore[assignment]
    return {name: float(value) for name, value in learner.loss(batch, Outputs(Z, Z)).items()}


def cross_entropy() -> float:
    z, y = Z.numpy(), Y.numpy()
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(2), y]))


def test_softmax_distillation_is_that_of_pycil(tmp_path: Path) -> None:
    q = np.exp(OLD.numpy() / 2) / np.exp(OLD.numpy() / 2).sum(1, keepdims=True)
    p = np.exp(Z.numpy()[:, :2] / 2) / np.exp(Z.numpy()[:, :2] / 2).sum(1, keepdims=True)
    found = terms(tmp_path, "ce+kd")
    assert found["ce"] == pytest.approx(cross_entropy())
    assert found["kd"] == pytest.approx(float(-(q * np.log(p)).sum(1).mean()))


def test_summed_sigmoid_distillation_is_that_of_long_tailed_cil(tmp_path: Path) -> None:
    g, q = 1 / (1 + np.exp(-Z.numpy()[:, :2])), 1 / (1 + np.exp(-OLD.numpy()))
    per_class = -(q * np.log(g) + (1 - q) * np.log(1 - g)).mean(0)  # batch mean of each class, then their sum
    found = terms(tmp_path, "ce+sum-bce")
    assert found["ce"] == pytest.approx(cross_entropy())
    assert found["kd"] == pytest.approx(float(per_class.sum()))


def test_the_papers_loss_has_the_teachers_sigmoids_on_old_units_and_labels_on_new_ones(
    tmp_path: Path,
) -> None:
    g = 1 / (1 + np.exp(-Z.numpy()))
    target = np.concatenate(
        [1 / (1 + np.exp(-OLD.numpy())), [[1.0], [0.0]]], axis=1
    )  # class 0 is old: no hard label
    expected = -(target * np.log(g) + (1 - target) * np.log(1 - g)).sum(1).mean()
    assert terms(tmp_path, "bce") == {"bce": pytest.approx(float(expected))}


def test_class_means_are_normalised_means_of_normalised_features() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 5.0]])
    pool = Pool.of_new(torch.arange(3), torch.tensor([0, 0, 2]))
    kept = Sweep(pool, features, features, pool.quota)
    means = class_means([features], kept.pool.quota, 3)
    half = 2**-0.5
    assert torch.allclose(means, torch.tensor([[half, half], [0, 0], [0, 1]]))


def test_the_nearest_mean_is_the_primary_predictor_and_agrees_with_brute_force(tmp_path: Path) -> None:
    runner = tiny_runner("icarl", tmp_path)
    runner.run()
    learner, stored = runner.learner, runner.s.folder.load_scores(2)
    assert list(stored)[2:4] == ["test/nme", "test/fc"]
    images = runner.s.test_bank.test_images(torch.from_numpy(stored["test_rows"]))
    with torch.no_grad():
        features = learner.net.eval()(images).features.double().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    means = learner.state["means"].double().numpy()
    distances = ((features[:, None] - means[None]) ** 2).sum(2)
    assert np.allclose(-stored["test/nme"], distances, atol=1e-5)


def test_without_a_memory_only_the_head_predicts(tmp_path: Path) -> None:
    runner = tiny_runner("icarl", tmp_path, memory="0")
    runner.run()
    assert [name for name in runner.s.folder.load_scores(0) if name.startswith("test/")] == ["test/fc"]


def test_released_follows_the_hold_out_of_its_own_phase_and_stops_early(tmp_path: Path) -> None:
    settings = {"icarl.patience": 1, "icarl.lr_min": 0.02, "train.epochs": 30, "train.schedule": "multistep",
                "train.milestones": [20]}  # fmt: skip
    runner = tiny_runner("icarl", tmp_path, preset="released", settings=settings)
    epochs: list[tuple[int, int]] = []
    runner.s.view = SimpleNamespace(  # type: ignore[assignment]
        message=lambda text: None, warning=lambda text: None, run_started=lambda *_: None,
        epoch=lambda progress: epochs.append((progress.phase, progress.epoch)), phase_finished=lambda *_: None,
    )  # fmt: skip
    runner.run()
    last = dict(epochs)
    assert set(last) == {0, 1, 2}
    assert max(last.values()) < 30  # the learning rate fell below lr_min before


def test_a_quarter_of_a_recipe_divides_the_patience_of_its_epochs_in_every_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """160 epochs and 5 of patience are 40 and 2: after its best epoch the rate falls every second one, four times,
    and with the fourth it is below 0.0001."""
    losses = iter([1.0, *[2.0] * 8] * 3)
    monkeypatch.setattr("imbcil.harness.loop.validation_loss", lambda *_: next(losses))
    rates: dict[int, list[float]] = {}
    recipe = {"epochs_divisor": 4, "train": {**RECIPE["train"], "epochs": 160, "lr": 0.1, "batch": 99}}
    runner = tiny_runner("icarl", tmp_path, preset="released", recipe=recipe)

    def watched(context: StageContext, images: int) -> None:
        found = context.optimiser.torch.param_groups[0]["lr"]
        rates.setdefault(runner.place.phase, []).append(found)

    monkeypatch.setattr(runner, "_after_step", watched)
    runner.run()
    falling = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    assert rates == {phase: pytest.approx(falling) for phase in range(3)}


def test_patience_takes_the_place_of_a_warm_up_too(tmp_path: Path) -> None:
    train = {"train": {**RECIPE["train"], "warmup": 1}}
    runner, phase = begun("icarl", tmp_path, phase=0, preset="released", recipe=train)
    optim = runner.learner.stages(phase)[0].optim
    assert (optim.schedule, optim.warmup, optim.lr_scale(0)) == ("plateau", 0, 1.0)


def test_a_phase_without_a_hold_out_keeps_the_recipes_schedule(tmp_path: Path) -> None:
    runner = tiny_runner("icarl", tmp_path, preset="released")
    nothing = Pool.empty()
    phase = SimpleNamespace(memory=nothing, new=nothing, holdout=nothing, lo=0)
    stage = runner.learner.stages(phase)[0]  # type: ignore[arg-type]
    assert (stage.optim, stage.val) == (runner.learner.cfg.train, None)


@pytest.mark.parametrize("method", ["replay", "finetune"])
def test_finetune_and_replay_differ_from_icarl_only_where_they_should(method: str, tmp_path: Path) -> None:
    runner = tiny_runner(method, tmp_path)
    runner.run()
    kept = len(runner.learner.memory)
    assert kept == (0 if method == "finetune" else sum(min(n, 4) for n in (11, 3, 7, 5, 2, 8)))
