"""The one loop: what a step does in which order, sums and means, plateaus, non-finite losses, frozen parts."""

import errno
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_plan, tiny_runner
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation, RunStopped
from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Batch, Learner, Outputs, Phase, Plugin
from imbcil.harness.loop import (
    StageContext,
    StagePosition,
    checked_means,
    epoch_plan,
    position_from_state,
    position_to_state,
    record,
    stored_extras,
    train_stage,
    training_batch,
    validation_loss,
)
from imbcil.harness.network.selectors import select, set_modes
from imbcil.harness.optimiser import NamedOptimiser, Plateau
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Interrupted, Runner
from imbcil.harness.samplers import Online, Streams
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Group, Stage
from imbcil.harness.store import checkpoint
from imbcil.harness.tools import seeded

OPTIM = Optimisation(epochs=2, batch=8, lr=0.05)


class Opened:
    """A first phase with its network, as a stage finds it."""

    def __init__(self, store: Path, learner: Learner | None = None, plugins: Sequence[Plugin] = ()) -> None:
        self.runner: Runner = tiny_runner("replay", store)
        if learner is not None:
            self.runner.learner, self.runner.s.learner = learner, learner
        self.runner.plugins = Plugins(plugins)
        self.runner._equip()
        self.runner._build_network()
        self.learner = self.runner.learner
        with seeded("grow"):
            self.learner.net.grow(3)
        self.phase: Phase = self.runner._phase_view()
        self.seen: list[tuple[int, int]] = []
        self.means: list[dict[str, float]] = []

    def context(self, stage: Stage | None = None, position: StagePosition | None = None) -> StageContext:
        stage = stage or Stage("train", self.phase.new, OPTIM, owner="learner")
        assert isinstance(stage.pool, Pool)
        net = self.learner.net
        net.requires_grad_(False)
        for group in stage.train:
            for value in select(net, group.select).values():
                value.requires_grad_(True)
        set_modes(net, stage.live)
        made = StageContext(
            self.learner, self.runner.plugins, stage, stage.pool, self.runner.s.train_bank, 3, (0, 0, stage.name),
            NamedOptimiser(net, stage), position or StagePosition(),
            after_step=lambda images: self.seen.append((made.position.epoch, made.position.step)),
            after_epoch=lambda means, seconds, images: self.means.append(means),
        )  # fmt: skip
        return made

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.learner.net.state_dict().items()}


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


# --- the loop -----------------------------------------------------------------------------------------------------


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


# --- stages in a run ----------------------------------------------------------------------------------------------

STAGED = '''
import torch
from imbcil.harness.contract import Group, Learner, Optimisation, Pool, Stage

class Staged(Learner):
    """A stage with work around it, one without rows, and one whose pool is drawn when it opens."""

    def note(self, word):
        self.state.setdefault("log", []).append(word)

    def drawn(self):
        self.note("pool")
        return Pool.of_new(self.state["rows"].clone(), torch.zeros(4, dtype=torch.int64))

    def begin_phase(self, phase):
        super().begin_phase(phase)
        self.state["rows"] = phase.new.index[:1].repeat(4).clone()

    def stages(self, phase):
        optim = Optimisation(epochs=1, batch=2)
        return [
            Stage("first", phase.new, optim, begin=lambda: self.note("begin"), end=lambda: self.note("end")),
            Stage("empty", Pool.empty(), optim, begin=lambda: self.note("empty begin"), end=lambda: self.note("no")),
            Stage("second", self.drawn, optim, train=(Group("head"),)),
        ]
'''


class Talking:
    """A view that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.message = self.warning = self.told.append

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def staged(tmp_path: Path, store: str = "store", **options: Any) -> Runner:
    (tmp_path / "staged.py").write_text(STAGED)
    runner = tiny_runner(f"{tmp_path}/staged.py", tmp_path / store, **options)
    runner.s.view = Talking()
    return runner


def test_work_around_stages_is_done_once_and_a_stage_without_rows_is_skipped_with_a_word(tmp_path: Path):
    runner = staged(tmp_path)
    runner.run()
    assert runner.learner.state["log"] == ["begin", "end", "empty begin", "pool"] * 3
    assert runner.s.view.told == [
        f"phase {t} of 3: stage empty has no rows and is skipped" for t in (1, 2, 3)
    ]


@pytest.mark.parametrize("stage", ["first", "second"])
def test_after_a_restart_a_stage_neither_begins_again_nor_draws_its_pool_again(tmp_path: Path, stage: str):
    class Killed(Exception):
        pass

    whole = staged(tmp_path, "whole")
    whole.run()
    runner = staged(tmp_path, every=0)
    original = runner.save

    def save(context: Any = None) -> None:
        original(context)
        if context is not None and context.stage.name == stage:
            raise Killed

    runner.save = save  # type: ignore[method-assign]
    with pytest.raises(Killed):
        runner.run()
    again = staged(tmp_path)
    again.run()
    assert again.learner.state["log"] == whole.learner.state["log"]
    mine, theirs = again.learner.net.state_dict(), whole.learner.net.state_dict()
    assert changed(mine, theirs) == set()


def test_a_run_that_is_asked_to_stop_saves_says_where_and_goes_on(tmp_path: Path):
    whole, runner = tiny_runner("replay", tmp_path / "whole"), tiny_runner("replay", tmp_path / "stopped")
    whole.run()
    runner.s.stop = threading.Event()
    original = runner._after_step

    def after_step(context: StageContext, images: int) -> None:
        if (runner.place.phase, context.position.epoch, context.position.step) == (1, 1, 1):
            runner.s.stop.set()
        original(context, images)

    runner._after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="phase 2 of 3, epoch 2, step 1"):
        runner.run()
    again = tiny_runner("replay", tmp_path / "stopped")
    again.run()
    assert changed(whole.learner.net.state_dict(), again.learner.net.state_dict()) == set()


def test_a_disk_that_fills_up_stops_the_run_and_it_goes_on_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, runner = (
        tiny_runner("replay", tmp_path / "whole"),
        tiny_runner("replay", tmp_path / "full", every=0),
    )
    whole.run()
    write, left = checkpoint._write, iter(range(25))

    def full(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(RunStopped, match="No space left on device") as stop:
        runner.run()
    assert stop.value.exit_code == 1
    monkeypatch.undo()
    again = tiny_runner("replay", tmp_path / "full")
    assert again.run()[0].phase == 0
    assert changed(whole.learner.net.state_dict(), again.learner.net.state_dict()) == set()
