"""Composing a learner with plug-ins: conflicts are refused in one sentence before any data is opened."""

from collections.abc import Sequence
from dataclasses import replace

from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import Criterion, Learner, Phase, Plugin, Stage
from imbcil.harness.network.network import NetSpec, Network
from imbcil.harness.samplers import Shuffle
from imbcil.harness.settings import MemorySettings
from imbcil.harness.state import Rewrap


def check_composition(
    learner: type[Learner],
    name: str,
    plugins: Sequence[tuple[str, type[Plugin]]],
    memory: MemorySettings,
    labels: str,
) -> None:
    """Raise BadInput naming both sides, the slot and the way out."""
    needs = learner.needs
    if labels not in needs.labels:
        raise BadInput(f"{name} learns from {_listed(needs.labels)} labels; this protocol has {labels} ones.")
    if needs.memory == "required" and memory.empty:
        raise BadInput(
            f"{name} needs an exemplar memory, and --memory 0 leaves none; give N/class or a total."
        )
    owners: dict[str, str] = {}
    heads, by_whom = needs.heads(labels), name
    for other, plugin in plugins:
        if other in owners.values() or [part for part, _ in plugins].count(other) > 1:
            raise BadInput(f"{other} is there twice in {_written(name, plugins)}; name a plug-in once.")
        for slot in plugin.slots:
            if slot in owners:
                raise BadInput(
                    f"{owners[slot]} and {other} both claim the {slot}; they cannot be combined: leave one out."
                )
            owners[slot] = other
        if labels not in plugin.labels:
            raise BadInput(
                f"{other} works on {_listed(plugin.labels)} labels; this protocol has {labels} ones."
            )
        if "criterion" in plugin.slots and needs.criterion != "ce":
            raise BadInput(
                f"{other} replaces the classification criterion, but {name} brings its own ({needs.criterion}); "
                "they cannot be combined."
            )
        if "sampler" in plugin.slots and needs.sampler == "own":
            raise BadInput(
                f"{other} replaces the sampler, but {name} brings its own; they cannot be combined: use one of them."
            )
        if not heads & plugin.needs_head:
            raise BadInput(
                f"{other} needs a {_listed(plugin.needs_head)} head, but {by_whom} has a {_listed(heads)} one; "
                "they cannot be combined."
            )
        heads, by_whom = heads & plugin.needs_head, f"{by_whom}+{other}"


class Plugins(Rewrap):
    """The plug-ins of a run in the order written; the last one's criterion is outermost."""

    def __init__(self, items: Sequence[Plugin]) -> None:
        self.items = tuple(items)
        self.wrapped_ever: set[str] = set()
        self.criterion_called = False

    def design(self, spec: NetSpec) -> NetSpec:
        for plugin in self.items:
            spec = plugin.design(spec)
        return spec

    def stages(self, phase: Phase, learner: Learner) -> list[Stage]:
        """The learner's stages after every plug-in's changes, each with its owner."""
        stages = [_owned(stage, "learner") for stage in learner.stages(phase)]
        for plugin in self.items:
            stages = [_owned(stage, plugin.name) for stage in plugin.stages(phase, stages, learner)]
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise BadInput(f"Two stages are called {max(names, key=names.count)!r}; stage names must differ.")
        return stages

    def criterion(self, base: Criterion) -> Criterion:
        for plugin in self.items:
            base = plugin.criterion(base)
        return base

    def wrap(self, net: Network, stage: Stage) -> None:
        for plugin in self.items:
            if plugin.wants(stage) and (names := list(plugin.wrap(net))):
                net.wraps[plugin.name] = names
                self.wrapped_ever.add(plugin.name)

    def unwrap(self, net: Network) -> None:
        for plugin in reversed(self.items):
            if plugin.name in net.wraps:
                plugin.unwrap(net)
                del net.wraps[plugin.name]

    def __call__(self, net: Network, wraps: dict[str, list[str]]) -> None:  # type: ignore[override]
        """Put wrappers back after a restart: structure only, values follow from the checkpoint."""
        super().__call__(
            net, {name: wraps[name] for name in wraps.keys() - {item.name for item in self.items}}
        )
        for plugin in self.items:
            if plugin.name in wraps:
                net.wraps[plugin.name] = list(plugin.wrap(net, only=wraps[plugin.name]))


def check_head(spec: NetSpec, learner: Learner, plugins: Plugins, labels: str = "single") -> None:
    """The head kind that came out of all designs must suit the learner and every plug-in."""
    for part, allowed in [
        (learner.name, learner.needs.heads(labels)),
        *((p.name, p.needs_head) for p in plugins.items),
    ]:
        if spec.head.kind not in allowed:
            raise BadInput(
                f"{part} needs a {_listed(allowed)} head, but the network has a {spec.head.kind} one."
            )


def check_effect(plugins: Plugins, stages: Sequence[Stage]) -> None:
    """After the first phase's stages: a plug-in that changed nothing is an error, not a warning."""
    for plugin in plugins.items:
        if "criterion" in plugin.slots and not plugins.criterion_called:
            raise BadInput(
                f"{plugin.name} replaces the classification criterion, which no stage called; leave it out."
            )
        if "sampler" in plugin.slots and all(isinstance(stage.sampler, Shuffle) for stage in stages):
            raise BadInput(
                f"{plugin.name} replaces the sampler, but every stage still shuffles; leave it out."
            )
        if any(slot.startswith("wrap:") for slot in plugin.slots) and plugin.name not in plugins.wrapped_ever:
            raise BadInput(f"{plugin.name} found no module to wrap in this network; leave it out.")


def _owned(stage: Stage, owner: str) -> Stage:
    return stage if stage.owner else replace(stage, owner=owner)


def _listed(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))


def _written(name: str, plugins: Sequence[tuple[str, type[Plugin]]]) -> str:
    return "+".join([name, *(part for part, _ in plugins)])
