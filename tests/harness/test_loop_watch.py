"""What the loop watches: means of an epoch, losses that are not finite, the validation loss and its plateau."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from opened import OPTIM, Opened, changed
from tiny import tiny_runner
from torch import Tensor, nn

from imbcil.harness.base.errors import RunStopped
from imbcil.harness.contract import Phase
from imbcil.harness.loop import (
    StagePosition,
    checked_means,
    position_from_state,
    position_to_state,
    record,
    train_stage,
    validation_loss,
)
from imbcil.harness.optimiser import Plateau
from imbcil.harness.pools import Pool
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Stage

# --- sums, means, losses that are not finite ----------------------------------------------------------------------


def test_terms_are_summed_apart_and_divided_by_the_steps(opened: Opened):
    sums: dict[str, Tensor] = {}
    terms = [torch.tensor(value) for value in (1.0, 2.0, 6.0)]
    for term in terms:
        record(sums, {"ce": term, "kd": -term})
    assert [float(term) for term in terms] == [1, 2, 6]  # copied, not added to
    assert checked_means(sums, 3, opened.context()) == {"ce": 3.0, "kd": -3.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_learner_phase_stage_epoch_and_term(opened: Opened, bad: float):
    context = opened.context(position=StagePosition(epoch=4))
    with pytest.raises(RunStopped) as stop:
        checked_means({"ce": torch.tensor(1.0), "kd": torch.tensor(bad)}, 3, context)
    sentence = str(stop.value)
    for part in ("'kd'", "replay", "phase 1", "stage train", "epoch 5", "last good checkpoint stays"):
        assert part in sentence, sentence
    assert stop.value.exit_code == 1


EXPLODES = '''
from imbcil.harness.contract import Learner

class Explodes(Learner):
    """Its second term is no number at the end of the second epoch of phase 1."""

    def loss(self, batch, out):
        bad = len(out.logits[0]) > 3 and batch.epoch == 1 and batch.step == batch.steps - 1
        return {"ce": self.classify(batch, out.logits).mean(), "odd": out.logits.mean() * (float("nan") if bad else 0)}
'''


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_a_run_stops_at_a_loss_that_is_not_finite_and_its_last_good_checkpoint_loads(
    tmp_path: Path, every: float
):
    (tmp_path / "explodes.py").write_text(EXPLODES)
    runner = tiny_runner(f"{tmp_path}/explodes.py", tmp_path / "store", every=every)
    with pytest.raises(
        RunStopped, match=r"'odd' of explodes is not finite in phase 2 of 3, stage train, epoch 2"
    ):
        runner.run()
    assert [line.phase for line in runner.s.folder.records()] == [0]
    again = tiny_runner(f"{tmp_path}/explodes.py", tmp_path / "store", every=every)
    with pytest.raises(RunStopped, match="'odd' of explodes"):
        again.run()
    assert again.place.phase == 1
    _, tensors = again.checkpoints.load()
    assert all(
        bool(value.isfinite().all())
        for name, value in tensors.items()
        if "#" in name and value.is_floating_point()
    )


# --- validation ---------------------------------------------------------------------------------------------------


def test_the_validation_loss_is_the_mean_over_images_in_evaluation_mode(opened: Opened):
    stage = Stage(
        "train", opened.phase.new, OPTIM, val=opened.phase.holdout + opened.phase.new, owner="learner"
    )
    context = opened.context(stage)
    modes = [module.training for module in opened.learner.net.modules()]
    before = opened.weights()
    found = validation_loss(context, 0, context.pool.counts(3))
    assert [module.training for module in opened.learner.net.modules()] == modes
    assert changed(before, opened.weights()) == set()
    bank, val = opened.runner.s.train_bank, stage.val
    with torch.no_grad():
        logits = opened.learner.net.eval()(bank.test_images(val.index)).logits
    assert found == pytest.approx(
        float(nn.functional.cross_entropy(logits, bank.targets(val.index))), rel=1e-5
    )


def test_a_plateau_lowers_the_rate_and_ends_the_stage_early(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    losses = iter([1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 2.0])
    monkeypatch.setattr("imbcil.harness.loop.validation_loss", lambda run, epoch, counts: next(losses))
    optim = Optimisation(epochs=50, batch=99, lr=0.1, schedule="plateau", patience=2, lr_min=0.005)
    context = opened.context(Stage("train", opened.phase.new, optim, val=opened.phase.holdout))
    rates = []
    context.after_step = lambda images: rates.append(context.optimiser.torch.param_groups[0]["lr"])
    train_stage(context)
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01])  # bad epochs: 2 and 3, then 5 and 6
    assert context.position.plateau.stopped
    train_stage(context)  # a stage that has stopped stays stopped
    assert len(rates) == 6


@pytest.mark.parametrize("val", [None, Pool.empty()])
def test_a_plateau_without_images_to_watch_never_falls(opened: Opened, val: Pool | None):
    optim = Optimisation(epochs=4, batch=99, schedule="plateau", patience=1)
    context = opened.context(Stage("train", opened.phase.new, optim, val=val))
    train_stage(context)
    assert context.position.plateau == Plateau()
    assert len(opened.means) == 4


def test_a_position_comes_back_from_its_state():
    position = StagePosition(3, 7, {"ce": torch.tensor(2.5)}, Plateau(1.0, 2, 0.1, False))
    again = position_from_state(position_to_state(position))
    assert again == position


def test_the_published_preset_of_icarl_watches_its_own_holdout(tmp_path: Path):
    runner: Any = tiny_runner("icarl", tmp_path, preset="released")
    watched: list[Any] = []
    original = runner._run_stage

    def seen(phase: Phase, stage: Stage) -> None:
        watched.append((stage.optim.schedule, stage.val.quota.tolist()))
        original(phase, stage)

    runner._run_stage = seen
    runner.run()
    assert watched == [("plateau", [0, 2]), ("plateau", [3]), ("plateau", [5])]
