"""Composing a learner with plug-ins: conflicts are refused in one sentence before any data is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput, NotDefined
from imbcil.harness.contract import Batch, Criterion, Learner, Needs, Phase, Plugin, Stage
from imbcil.harness.network.network import NetSpec, Network
from imbcil.harness.samplers import Shuffle
from imbcil.harness.settings import MemorySettings
from imbcil.harness.state import Rewrap


class Named(Protocol):
    """A learner or plug-in of a run, by name and class."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> type[Any]: ...


def check_composition(
    learner: type[Learner],
    name: str,
    plugins: Sequence[tuple[str, type[Plugin]]],
    memory: MemorySettings,
    labels: str,
    settings: Mapping[str, Frozen] | None = None,
) -> None:
    """Raise NotDefined naming both sides, the slot and the way out, or BadInput for a memory or labels that do not suit
    the learner. `settings` of learner and plug-ins by name; one without any is taken with its defaults."""
    own = (settings or {}).get(name)
    needs = learner.needs if own is None else learner.needs_with(own)
    if labels not in needs.labels:
        raise BadInput(
            f"{name} learns from {_listed(needs.labels)} labels; this protocol has {labels} ones; use another learner or "
            "another --protocol."
        )
    if needs.memory == "required" and memory.empty:
        raise BadInput(
            f"{name} needs an exemplar memory, and --memory 0 leaves none; give N/class or a total."
        )
    owners: dict[str, str] = {}
    heads, by_whom = needs.heads(labels), name
    for other, plugin in plugins:
        if other in owners.values() or [part for part, _ in plugins].count(other) > 1:
            raise NotDefined(f"{other} is there twice in {_written(name, plugins)}; name a plug-in once.")
        given = (settings or {}).get(other)
        slots = plugin.claims(plugin.Config() if given is None else given)
        for slot in slots:
            if slot in owners:
                raise NotDefined(
                    f"{owners[slot]} and {other} both claim the {slot}; they cannot be combined: leave one out."
                )
            owners[slot] = other
        if labels not in plugin.labels:
            raise NotDefined(
                f"{other} works on {_listed(plugin.labels)} labels; this protocol has {labels} ones: leave {other} out."
            )
        if "criterion" in slots and needs.criterion != "ce":
            raise NotDefined(
                f"{other} replaces the classification criterion, but {name} brings its own ({needs.criterion}); "
                f"they cannot be combined: leave {other} out."
            )
        if "targets" in slots and (hard := _hard_labels(needs)):
            raise NotDefined(
                f"{other} mixes the labels of images, but {name} needs one hard label an image ({hard}); they cannot "
                f"be combined: leave {other} out."
            )
        if "sampler" in slots and needs.sampler == "own":
            raise NotDefined(
                f"{other} replaces the sampler, but {name} brings its own; they cannot be combined: use one of them."
            )
        fitting = heads if "any" in plugin.needs_head else heads & plugin.needs_head
        if not fitting:
            raise NotDefined(
                f"{other} needs a {_listed(plugin.needs_head)} head, but {by_whom} has a {_listed(heads)} one; "
                f"they cannot be combined: leave {other} out."
            )
        heads, by_whom = fitting, f"{by_whom}+{other}"


def composition_notes(plugins: Sequence[tuple[str, type[Plugin]]]) -> list[str]:
    """What is allowed and yet worth a word: a criterion that knows the class sizes on draws that are balanced too."""
    priors = [name for name, plugin in plugins if plugin.needs_counts and "criterion" in plugin.slots]
    draws = [name for name, plugin in plugins if "sampler" in plugin.slots]
    return [f"{prior} with {drawn} corrects the class sizes twice." for prior in priors for drawn in draws]


def check_counts(plugins: Sequence[Named], counts: Sequence[float], names: Sequence[str]) -> None:
    """Refuse a class without a training image where a plug-in works with class priors. Raises BadInput."""
    for plugin in plugins:
        if plugin.kind.needs_counts and 0 in counts:
            raise BadInput(
                f"{plugin.name} works with class frequencies, but the class {names[list(counts).index(0)]!r} has no training "
                "image; use a milder --rho or a smaller data.holdout, or leave the plug-in out."
            )


class Plugins(Rewrap):
    """The plug-ins of a run in the order written; the last one's criterion is outermost."""

    def __init__(self, items: Sequence[Plugin]) -> None:
        self.items = tuple(items)
        self.wrapped_ever: set[str] = set()
        self.criterion_called = False
        self.had_effect: set[str] = set()  # names of those that changed a list of stages or a batch

    def design(self, spec: NetSpec) -> NetSpec:
        for plugin in self.items:
            spec = plugin.design(spec)
        return spec

    def stages(self, phase: Phase, learner: Learner) -> list[Stage]:
        """The learner's stages after every plug-in's changes, each with its owner."""
        stages = [_owned(stage, "learner") for stage in learner.stages(phase)]
        for plugin in self.items:
            changed = [_owned(stage, plugin.name) for stage in plugin.stages(phase, stages, learner)]
            if len(changed) != len(stages) or any(a is not b for a, b in zip(changed, stages, strict=True)):
                self.had_effect.add(plugin.name)
            stages = changed
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise BadInput(f"Two stages are called {max(names, key=names.count)!r}; stage names must differ.")
        return stages

    def criterion(self, base: Criterion) -> Criterion:
        """Who mixes labels is outermost whatever the order: it asks the others for each label on its own."""
        for plugin in sorted(self.items, key=lambda plugin: "targets" in plugin.slots):
            base = plugin.criterion(base)
        return base

    def prepare(self, batch: Batch) -> Batch:
        for plugin in self.items:
            prepared = plugin.prepare(batch)
            if prepared is not batch:
                self.had_effect.add(plugin.name)
            batch = prepared
        return batch

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
        if not allowed & {spec.head.kind, "any"}:
            raise BadInput(
                f"{part} needs a {_listed(allowed)} head, but the network has a {spec.head.kind} one."
            )


def check_effect(plugins: Plugins, stages: Sequence[Stage]) -> None:
    """After the first phase's stages: a plug-in that changed nothing is an error, not a warning."""
    for plugin in plugins.items:
        slots = plugin.claims(plugin.cfg)
        if "criterion" in slots and not plugins.criterion_called:
            raise BadInput(
                f"{plugin.name} replaces the classification criterion, which no stage called; leave it out."
            )
        if "sampler" in slots and all(isinstance(stage.sampler, Shuffle) for stage in stages):
            raise BadInput(
                f"{plugin.name} replaces the sampler, but every stage still shuffles; leave it out."
            )
        if any(slot.startswith("wrap:") for slot in slots) and plugin.name not in plugins.wrapped_ever:
            raise BadInput(f"{plugin.name} found no module to wrap in this network; leave it out.")
        checked = any(slot in ("criterion", "sampler") or slot.startswith("wrap:") for slot in slots)
        changes = type(plugin).stages is not Plugin.stages or type(plugin).prepare is not Plugin.prepare
        if changes and not checked and plugin.name not in plugins.had_effect:
            raise BadInput(f"{plugin.name} changed no stage and no batch of the first phase; leave it out.")


def _hard_labels(needs: Needs) -> str:
    """What needs exactly one label an image, "" if nothing does."""
    return needs.hard_labels or ("" if needs.criterion == "ce" else needs.criterion)


def _owned(stage: Stage, owner: str) -> Stage:
    return stage if stage.owner else replace(stage, owner=owner)


def _listed(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))


def _written(name: str, plugins: Sequence[tuple[str, type[Plugin]]]) -> str:
    return "+".join([name, *(part for part, _ in plugins)])
