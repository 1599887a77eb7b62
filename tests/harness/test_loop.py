"""The one loop: what a step does in which order, batches and their keys, frozen parts."""

import math
from pathlib import Path

import pytest
import torch
from opened import OPTIM, Opened, changed
from tiny import tiny_plan
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation, RunStopped
from imbcil.harness.contract import Batch, Learner, Outputs, Plugin
from imbcil.harness.loop import (
    checked_means,
    epoch_plan,
    stored_extras,
    train_stage,
    training_batch,
)
from imbcil.harness.samplers import Online, Streams
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Group, Stage


def test_a_stage_makes_every_step_of_every_epoch_once(opened: Opened):
    train_stage(opened.context())
    assert opened.seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]  # 21 images in batches of 8
    assert len(opened.means) == 2


def test_a_stage_that_goes_on_from_the_middle_ends_bit_identical(tmp_path: Path):
    whole, torn = Opened(tmp_path / "a"), Opened(tmp_path / "b")
    train_stage(whole.context())

    class Stop(Exception):
        pass

    context = torn.context()

    def stop(images: int) -> None:
        if (context.position.epoch, context.position.step) == (1, 2):
            raise Stop

    context.after_step = stop
    with pytest.raises(Stop):
        train_stage(context)
    torch.manual_seed(99)
    resumed = torn.context(position=context.position)
    resumed.optimiser.load_state(context.optimiser.to_state())
    train_stage(resumed)
    assert changed(whole.weights(), torn.weights()) == set()
    assert torn.seen == [(1, 3)]
    assert torn.means[-1] == whole.means[-1]  # the epoch's sums go on, too


def test_a_step_by_hand_is_the_same_step(opened: Opened):
    """Plain torch on the loop's first batch: forward, backward, SGD."""
    context = opened.context(
        Stage("train", opened.phase.new, Optimisation(epochs=1, batch=99, lr=0.1), owner="learner")
    )
    rows = epoch_plan(context, 0)[0]
    batch = training_batch(context, rows, 0, 0, 1, context.pool.counts(3))
    from imbcil.harness.network.network import clone

    by_hand = clone(opened.learner.net)
    sgd = torch.optim.SGD(by_hand.parameters(), 0.1, momentum=0.9)
    loss = nn.functional.cross_entropy(by_hand(batch.images).logits, batch.targets)
    loss.backward()
    sgd.step()
    train_stage(context)
    for (name, mine), theirs in zip(opened.learner.net.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7, msg=name)
    assert opened.means[0]["ce"] == pytest.approx(loss.item())


class Recorder(Plugin):
    """Writes down when it is called; adds a loss term and a gradient."""

    def extra_loss(self, batch: Batch, out: Outputs, learner: Learner) -> dict[str, Tensor]:
        self.state["log"].append("extra_loss")
        return {"extra": 0 * out.logits.sum() + 3}

    def adjust_gradients(self, batch: Batch, out: Outputs, learner: Learner) -> None:
        self.state["log"].append("plugin gradients")

    def after_step(self, batch: Batch) -> None:
        self.state["log"].append("plugin after")


class RecordingLearner(Learner):
    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        batch.scratch["weights"] = self.net.head.weight.detach().clone()
        self.state["log"].append("loss")
        return {"ce": self.classify(batch, out.logits).mean()}

    def adjust_gradients(self, batch: Batch, out: Outputs) -> None:
        assert self.net.head.blocks[0].weight.grad is not None
        assert torch.equal(self.net.head.weight, batch.scratch["weights"])  # not stepped yet
        self.state["log"].append("gradients")

    def after_step(self, batch: Batch) -> None:
        assert not torch.equal(self.net.head.weight, batch.scratch["weights"])
        self.state["log"].append("after")


@pytest.mark.parametrize("owner", ["learner", "recorder"])
def test_hooks_are_called_in_order_and_a_learners_own_only_in_its_own_stages(tmp_path: Path, owner: str):
    run, _ = tiny_plan("replay", tmp_path)
    learner, plugin = (
        RecordingLearner(run.plan.learner.cfg, "replay"),
        Recorder(Recorder.Config(), "recorder"),
    )
    log: list[str] = []
    learner.state["log"] = plugin.state["log"] = log
    opened = Opened(tmp_path, learner, [plugin])
    optim = Optimisation(epochs=1, batch=99, lr=0.1)
    train_stage(opened.context(Stage("train", opened.phase.new, optim, owner=owner)))
    own = owner == "learner"
    assert log == [
        "loss", "extra_loss", *["gradients"] * own, "plugin gradients", *["after"] * own, "plugin after"
    ]  # fmt: skip
    assert opened.means[0]["extra"] == 3


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({}, "The loss in stage train of replay has no term"),
        (
            {"ce": torch.zeros(8)},
            r"loss term 'ce' in stage train of replay .* not shape \[8\]; take its mean",
        ),
        ({"kd": 0.5}, "loss term 'kd' in stage train of replay .* not float"),
    ],
)
def test_a_loss_that_is_no_number_names_learner_and_term(opened: Opened, terms: dict, sentence: str):
    with pytest.raises(ContractViolation, match=sentence):
        train_stage(opened.context(Stage("train", opened.phase.new, OPTIM, loss=lambda b, out: terms)))


def test_all_terms_that_are_not_finite_are_named(opened: Opened):
    context = opened.context(Stage("train", opened.phase.new, OPTIM))
    sums = {"ce": torch.tensor(1.0), "kd": torch.tensor(math.nan), "pod": torch.tensor(math.inf)}
    with pytest.raises(
        RunStopped, match=r"terms 'kd', 'pod' of replay are not finite in phase 1, stage train"
    ):
        checked_means(sums, 2, context)


def test_a_stage_may_bring_its_own_loss(opened: Opened):
    def own(batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"square": out.logits.square().mean()}

    train_stage(opened.context(Stage("train", opened.phase.new, OPTIM, loss=own)))
    assert list(opened.means[0]) == ["square"]


def test_an_epochs_means_are_of_that_epoch_alone(opened: Opened):
    def own(batch: Batch, out: Outputs) -> dict[str, Tensor]:
        return {"zero": 0 * out.logits.sum(), "epoch": torch.tensor(batch.epoch + 1.0)}

    train_stage(opened.context(Stage("train", opened.phase.new, OPTIM, loss=own)))
    assert opened.means == [{"zero": 0, "epoch": 1}, {"zero": 0, "epoch": 2}]


def test_an_adjusted_gradient_is_what_the_optimiser_takes(tmp_path: Path):
    class Silenced(Learner):
        def adjust_gradients(self, batch: Batch, out: Outputs) -> None:
            weight = self.net.head.blocks[0].weight
            weight.grad -= weight.grad.clone()

    run, _ = tiny_plan("replay", tmp_path)
    opened = Opened(tmp_path, Silenced(run.plan.learner.cfg, "replay"))
    before = opened.weights()
    train_stage(opened.context())
    moved = changed(before, opened.weights())
    assert "head.blocks.0.weight" not in moved
    assert "head.blocks.0.bias" in moved


def test_batches_know_their_place(opened: Opened):
    context = opened.context()
    plan = epoch_plan(context, 1)
    batch = training_batch(context, plan[2], 1, 2, 3, context.pool.counts(3))
    assert (batch.stage, batch.epoch, batch.step, batch.steps, batch.total) == ("train", 1, 2, 3, 6)
    assert batch.progress == pytest.approx(5 / 6)
    assert batch.counts.tolist() == [11, 3, 7]
    assert (batch.slot == -1).all()
    assert batch.targets.tolist() == opened.runner.s.train_bank.targets(batch.index).tolist()
    assert len(batch.images) == 21 - 16


def test_order_and_augmentation_belong_to_seed_phase_stage_and_epoch(opened: Opened):
    def first_images(
        name: str, epoch: int, key: tuple[object, ...] | None = None
    ) -> tuple[list[int], Tensor]:
        context = opened.context(Stage(name, opened.phase.new, OPTIM))
        context.key = key or context.key
        rows = epoch_plan(context, epoch)[0]
        return rows.rows.tolist(), training_batch(context, rows, epoch, 0, 3, context.pool.counts(3)).images

    base = first_images("train", 0)
    same = first_images("train", 0)
    assert base[0] == same[0]
    assert torch.equal(base[1], same[1])
    for other in (
        first_images("second", 0),
        first_images("train", 1),
        first_images("train", 0, (0, 1, "train")),
    ):
        assert other[0] != base[0]


def test_online_batches_draw_from_the_memory_as_it_stands(opened: Opened):
    memory = opened.learner.memory
    memory.add(opened.phase.new[torch.arange(5)], 0, mark=torch.arange(5.0)[:, None])
    context = opened.context(Stage("train", opened.phase.new, OPTIM, sampler=Online(replay=3)))
    rows = epoch_plan(context, 0)[0]
    batch = training_batch(context, rows, 0, 0, 3, context.pool.counts(3))
    assert batch.stream.tolist() == [0] * 8 + [1] * 3
    assert (batch.slot[:8] == -1).all()
    assert batch.extras["mark"][8:].flatten().tolist() == batch.slot[8:].tolist()
    assert batch.extras["mark"][:8].isnan().all()
    memory.keep(torch.tensor([4]))
    smaller = training_batch(context, rows, 0, 0, 3, context.pool.counts(3))
    assert smaller.stream.tolist() == [0] * 8 + [1]


def test_stored_columns_are_nan_or_zero_in_rows_that_are_no_exemplars(opened: Opened):
    opened.learner.memory.add(
        opened.phase.new[torch.arange(2)], 0, a=torch.tensor([[1.0], [2.0]]), b=torch.tensor([[3], [4]])
    )
    extras = stored_extras(opened.learner, torch.tensor([-1, 1, 0]), torch.device("cpu"))
    assert extras["a"].isnan().flatten().tolist() == [True, False, False]
    assert extras["a"][1:].tolist() == [[2], [1]]
    assert extras["b"].tolist() == [[0], [4], [3]]
    assert opened.learner.memory.extras["a"].tolist() == [[1], [2]]


def test_an_epoch_without_a_batch_is_no_error(opened: Opened):
    before = opened.weights()
    sampler = Streams(drop_last=True)
    train_stage(opened.context(Stage("train", opened.phase.new, Optimisation(batch=64), sampler=sampler)))
    assert opened.means == [{}]
    assert changed(before, opened.weights()) == set()


def test_no_epochs_change_nothing(opened: Opened):
    before = opened.weights()
    train_stage(opened.context(Stage("train", opened.phase.new, Optimisation(epochs=0))))
    assert (opened.seen, changed(before, opened.weights())) == ([], set())


def test_dropout_is_keyed_by_the_step_and_not_by_the_global_generator(tmp_path: Path):
    ends = []
    for number in range(2):
        opened = Opened(tmp_path / str(number))
        opened.learner.net.backbones[0].layer3.append(nn.Dropout(0.5))
        torch.manual_seed(number)
        state = torch.get_rng_state()
        train_stage(opened.context())
        assert torch.equal(torch.get_rng_state(), state)
        ends.append(opened.weights())
    assert changed(*ends) == set()


def test_a_last_batch_of_one_row_is_merged_only_for_one_dimensional_norms(opened: Opened):
    pool = opened.phase.new[torch.arange(17)]
    context = opened.context(Stage("train", pool, OPTIM))
    assert [len(part.rows) for part in epoch_plan(context, 0)] == [8, 8, 1]
    opened.learner.net.aux = nn.BatchNorm1d(4)  # type: ignore[assignment]
    assert [len(part.rows) for part in epoch_plan(context, 0)] == [8, 9]


# --- frozen parts -------------------------------------------------------------------------------------------------


def test_frozen_parts_stand_still_statistics_included(opened: Opened):
    before = opened.weights()
    optim = OPTIM.model_copy(update={"weight_decay": 0.5})
    train_stage(opened.context(Stage("train", opened.phase.new, optim, train=(Group("head"),))))
    assert changed(before, opened.weights()) == {"head.blocks.0.weight", "head.blocks.0.bias"}


def test_live_statistics_move_while_their_weights_do_not(opened: Opened):
    before = opened.weights()
    stage = Stage("train", opened.phase.new, OPTIM, train=(Group("head"),), live=("backbones.0.bn1",))
    train_stage(opened.context(stage))
    assert changed(before, opened.weights()) == {
        "head.blocks.0.weight", "head.blocks.0.bias", "backbones.0.bn1.running_mean", "backbones.0.bn1.running_var",
        "backbones.0.bn1.num_batches_tracked",
    }  # fmt: skip
