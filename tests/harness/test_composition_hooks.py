"""Composed hooks at work: stages, wrappers, effects, what a restart keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composed import (
    NeedsLinear,
    Plain,
    Prior,
    Resampled,
    Wrapper,
    plugins,
)
from tiny import tiny_runner

from imbcil.harness.base.errors import BadInput, ContractViolation
from imbcil.harness.composition import check_effect
from imbcil.harness.contract import Learner, Phase, Plugin
from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.pools import Pool
from imbcil.harness.samplers import ClassAware, Shuffle, Streams
from imbcil.harness.settings import Optimisation
from imbcil.harness.stages import Stage

# --- stages -------------------------------------------------------------------------------------------------------


class Appends(Plugin):
    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        return [*stages, Stage(f"after {len(stages)}", Pool.empty(), Optimisation())]


class Halves(Plugin):
    """Changes what is there."""

    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        return [replace(stage, optim=stage.optim.divided(2)) for stage in stages]


class Repeats(Plugin):
    def stages(self, phase: Phase, stages: Sequence[Stage], learner: Learner) -> Sequence[Stage]:
        return [*stages, stages[0]]


class TwoStages(Learner):
    def stages(self, phase: Phase) -> Sequence[Stage]:
        return [Stage(name, Pool.empty(), Optimisation(epochs=9)) for name in ("one", "two")]


PHASE: Phase = None  # type: ignore[assignment]  # these stages do not look at it


def test_stages_pass_through_every_plug_in_in_order_and_each_has_an_owner():
    stages = plugins(Appends, Halves).stages(PHASE, TwoStages(TwoStages.Config(), "two"))
    assert [(stage.name, stage.owner, stage.optim.epochs) for stage in stages] == [
        ("one", "learner", 5), ("two", "learner", 5), ("after 2", "appends", 1)
    ]  # fmt: skip


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(BadInput, match="Two stages are called 'one'"):
        plugins(Repeats).stages(PHASE, TwoStages(TwoStages.Config(), "two"))


# --- wrapping -----------------------------------------------------------------------------------------------------


def network() -> Network:
    net = Network(NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind="linear")), Runtime())
    net.grow(2)
    return net


def wrapping(name: str, log: list[str], finds: list[str]) -> type[Plugin]:
    class Logs(Plugin):
        slots = (f"wrap:{name}",)

        def wants(self, stage: Stage) -> bool:
            return stage.name == "train"

        def wrap(self, net: Network, only: Sequence[str] | None = None) -> list[str]:
            log.append(f"wrap {name} {only}")
            return list(only or finds)

        def unwrap(self, net: Network) -> None:
            log.append(f"unwrap {name}")

    Logs.__name__ = name
    return Logs


def test_wrappers_go_on_in_order_and_come_off_in_reverse():
    log: list[str] = []
    made, net = (
        plugins(wrapping("a", log, ["x"]), wrapping("b", log, ["y"]), wrapping("c", log, [])),
        network(),
    )
    made.wrap(net, Stage("train", Pool.empty(), Optimisation()))
    assert net.wraps == {"a": ["x"], "b": ["y"]}
    made.unwrap(net)
    assert net.wraps == {}
    assert log == ["wrap a None", "wrap b None", "wrap c None", "unwrap b", "unwrap a"]
    assert made.wrapped_ever == {"a", "b"}


def test_a_stage_that_nobody_wants_is_not_wrapped():
    log: list[str] = []
    made, net = plugins(wrapping("a", log, ["x"])), network()
    made.wrap(net, Stage("second", Pool.empty(), Optimisation()))
    made.unwrap(net)
    assert (log, net.wraps, made.wrapped_ever) == ([], {}, set())


# --- effects ------------------------------------------------------------------------------------------------------


def stage(sampler: Any = None) -> Stage:
    return Stage("train", Pool.empty(), Optimisation(), sampler=sampler or Shuffle())


def test_a_criterion_that_nobody_called_is_an_error():
    made = plugins(Prior)
    with pytest.raises(BadInput, match="prior replaces the classification criterion, which no stage called"):
        check_effect(made, [stage()])
    made.criterion_called = True
    assert check_effect(made, [stage()]) is None


def test_a_sampler_that_changed_no_stage_is_an_error():
    with pytest.raises(BadInput, match="resampled replaces the sampler, but every stage still shuffles"):
        check_effect(plugins(Resampled), [stage(), stage()])
    for sampler in (ClassAware(), Streams()):
        assert check_effect(plugins(Resampled), [stage(), stage(sampler)]) is None


def test_a_wrapper_that_found_nothing_is_an_error():
    made = plugins(Wrapper)
    with pytest.raises(BadInput, match="wrapper found no module to wrap in this network"):
        check_effect(made, [stage()])
    made.wrapped_ever.add("wrapper")
    assert check_effect(made, [stage()]) is None


def test_a_plug_in_without_a_slot_need_not_have_an_effect():
    assert check_effect(plugins(NeedsLinear), [stage()]) is None


HARD_LOSS = '''
from imbcil.harness.contract import Learner

class HardLoss(Learner):
    """Says that it classifies by the criterion, and does not."""

    def loss(self, batch, out):
        return {"mse": out.logits.square().mean()}
'''


def test_a_run_with_a_plug_in_that_nobody_calls_stops_in_its_first_phase_and_again_when_resumed(
    tmp_path: Path,
):
    (tmp_path / "hard_loss.py").write_text(HARD_LOSS)
    for _ in range(2):
        runner = tiny_runner(f"{tmp_path}/hard_loss.py+balanced_softmax", tmp_path / "store")
        with pytest.raises(
            BadInput, match="balanced_softmax replaces the classification criterion, which no stage"
        ):
            runner.run()
        assert runner.s.folder.records() == []


class Killed(Exception):
    """Right after a checkpoint."""


def test_a_plug_in_that_worked_before_a_restart_did_have_an_effect(tmp_path: Path):
    """Killed after the last step of the first stage: the restarted process has nothing left to call."""
    runner = tiny_runner("replay+balanced_softmax", tmp_path, every=0)
    original = runner.save

    def save(context: Any = None) -> None:
        original(context)
        if context is not None and (context.position.epoch, context.position.step) == (1, 3):
            raise Killed

    runner.save = save  # type: ignore[method-assign]
    with pytest.raises(Killed):
        runner.run()
    assert len(tiny_runner("replay+balanced_softmax", tmp_path).run()) == 3


SECOND_STAGE = '''
from dataclasses import replace
from imbcil.harness.contract import Plugin, Stage

class Late(Plugin):
    """A criterion for a stage of its own, which comes second; wraps there, too."""
    slots = ("wrap:conv",)

    def stages(self, phase, stages, learner):
        return [*stages, Stage("second", phase.new, stages[0].optim)]

    def wants(self, stage):
        return stage.name == "second"

    def wrap(self, net, only=None):
        return ["backbones.0.conv1"]
'''


def test_a_plug_in_may_have_its_effect_in_the_second_stage(tmp_path: Path):
    (tmp_path / "late.py").write_text(SECOND_STAGE)
    assert len(tiny_runner(f"replay+{tmp_path}/late.py", tmp_path / "store").run()) == 3


# --- the contract itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Plain, Prior])
def test_an_attribute_that_a_restart_would_lose_is_refused(kind: Any):
    made = kind(kind.Config(), "mine")
    with pytest.raises(ContractViolation, match=r"sets self\.anchor, .* keep it in self\.state\['anchor'\]"):
        made.anchor = 3
    made.state["anchor"] = 3


def test_past_data_are_closed_to_ordinary_learners():
    phase = Phase(1, 2, 4, Pool.empty(), Pool.empty(), Pool.empty(), torch.ones(4))
    with pytest.raises(PermissionError, match=r"Past data are closed .* needs\.privileged"):
        _ = phase.past
    assert (phase.old, phase.cur) == (slice(0, 2), slice(2, 4))


DOUBLE_TERM = """
from imbcil.harness.contract import Plugin

class Doubled(Plugin):
    def extra_loss(self, batch, out, learner):
        return {"ce": out.logits.mean()}
"""


def test_a_plug_in_cannot_overwrite_a_loss_term(tmp_path: Path):
    (tmp_path / "doubled.py").write_text(DOUBLE_TERM)
    with pytest.raises(ContractViolation, match="doubled adds the loss term 'ce', which is there already"):
        tiny_runner(f"replay+{tmp_path}/doubled.py", tmp_path / "store").run()
