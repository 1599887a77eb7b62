"""Learners and plug-ins that only claim something, for the tests of their composition."""

from typing import Any

from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Learner, Needs, Plugin


class Plain(Learner):
    """Everything that the contract gives."""


class Proxies(Learner):
    needs = Needs(criterion="NCA on proxies", head=frozenset({"cosine"}), memory="required")


class OwnSampler(Learner):
    needs = Needs(sampler="own", labels=frozenset({"single", "multi"}))


class Prior(Plugin):
    slots = ("criterion",)
    labels = frozenset({"single"})

    def criterion(self, inner: Any) -> Any:
        return lambda *arguments: 2 * inner(*arguments)


class Margin(Plugin):
    slots = ("criterion",)
    needs_head = frozenset({"cosine"})

    def criterion(self, inner: Any) -> Any:
        return lambda *arguments: inner(*arguments) + 1


class Resampled(Plugin):
    slots = ("sampler",)


class NeedsLinear(Plugin):
    needs_head = frozenset({"linear"})


class TwoSlots(Plugin):
    slots = ("calibrator", "sampler")


class Wrapper(Plugin):
    slots = ("wrap:conv",)


def plugins(*kinds: type[Plugin]) -> Plugins:
    return Plugins([kind(kind.Config(), kind.__name__.lower()) for kind in kinds])
