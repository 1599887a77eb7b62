"""What a run's checkpoint holds: the place, learner, plug-ins, memory, and an open stage with its optimiser.

Orders, augmentation, initialisation, dropout and learning rates follow from keys and are not saved.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Learner
from imbcil.harness.costs import Costs
from imbcil.harness.loop import StageContext, position_from_state, position_to_state
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.state import decode, encode
from imbcil.harness.store.checkpoint import CheckpointStore


@dataclass
class Place:
    """Where a run stands: `point` is "start" of a phase or among its "stages"; `open_stage` is what a checkpoint
    inside a stage kept: pool, position, optimiser."""

    phase: int = 0
    point: str = "start"
    stage: int = 0
    open_stage: dict[str, Any] | None = field(default=None)


def save(
    store: CheckpointStore,
    place: Place,
    learner: Learner,
    plugins: Plugins,
    costs: Costs,
    context: StageContext | None,
    where: str,
) -> None:
    """Write a checkpoint of this very moment. Raises RunStopped instead of saving a non-finite network; it names
    `where` the run stands."""
    state: dict[str, Any] = {
        "phase": place.phase,
        "point": place.point,
        "stage": place.stage,
        "threads": torch.get_num_threads(),
        "learner": learner.state,
        "plugins": {plugin.name: plugin.state for plugin in plugins.items},
        "wrapped": sorted(plugins.wrapped_ever),
        "criterion_called": plugins.criterion_called,
        "had_effect": sorted(plugins.had_effect),
        "memory": learner.memory.to_state(),
        "logged": dict(learner.tools.logged),
        "logged_per_class": dict(learner.tools.logged_per_class),
        "costs": costs.to_state(),
        "open_stage": None,
    }
    if context is not None:
        state["open_stage"] = {
            "pool": [column.clone() for column in context.pool.columns],
            "counts": None if context.counts is None else context.counts.clone(),
            "position": position_to_state(context.position),
            "optimiser": context.optimiser.to_state(),
        }
    tree, tensors = encode(state)
    _require_finite(tensors, learner.name, where)
    store.save(tree, tensors)


def load(
    store: CheckpointStore, learner: Learner, plugins: Plugins, costs: Costs, runtime: Runtime
) -> Place | None:
    """Put the newest whole checkpoint back into learner, plug-ins, memory and costs; None where there is none.

    Raises BadInput for a checkpoint that is whole but holds something else than a run's state.
    """
    found = store.load()
    if found is None:
        return None
    try:
        return _restored(decode(*found, runtime, plugins), learner, plugins, costs)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"The checkpoint in {store.folder} does not fit this run ({reason}); "
            "delete that folder to start the run anew."
        ) from error


def _restored(state: dict[str, Any], learner: Learner, plugins: Plugins, costs: Costs) -> Place:
    torch.set_num_threads(state["threads"])  # sums are rounded in the order of the threads
    learner.state = state["learner"]
    for plugin in plugins.items:
        plugin.state = state["plugins"][plugin.name]
    plugins.wrapped_ever = set(state["wrapped"])
    plugins.criterion_called = state.get("criterion_called", True)
    plugins.had_effect = set(state.get("had_effect", [plugin.name for plugin in plugins.items]))
    learner.memory.load_state(state["memory"])
    learner.tools.logged, learner.tools.logged_per_class = state["logged"], state["logged_per_class"]
    costs.load_state(state["costs"])
    opened = state["open_stage"]
    if opened is not None:
        opened = {**opened, "position": position_from_state(opened["position"])}
    return Place(state["phase"], state["point"], state["stage"], opened)


def _require_finite(tensors: dict[str, Tensor], learner: str, place: str) -> None:
    """Raise RunStopped naming the first network tensor that is not finite."""
    for name, tensor in tensors.items():
        if "#" in name and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunStopped(
                f"{name.split('#')[1]} of {learner} is not finite in {place}; the last good checkpoint stays, and a "
                "smaller learning rate (--set train.lr=...) may help."
            )
