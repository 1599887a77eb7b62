"""Composing learners and plug-ins: conflicts are one sentence that names both; what has no effect is an error."""

import pytest
from composed import (
    Margin,
    NeedsLinear,
    OwnSampler,
    Plain,
    Prior,
    Proxies,
    Resampled,
    TwoSlots,
    Wrapper,
    plugins,
)

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import load_plugin
from imbcil.harness.composition import (
    check_composition,
    check_head,
    composition_notes,
)  # fmt: skip
from imbcil.harness.contract import Learner, Plugin
from imbcil.harness.network.network import ModuleSpec, NetSpec
from imbcil.harness.settings import MemorySettings


def refused(
    learner: type[Learner], *plugins: type[Plugin], labels: str = "single", budget: str = "20/class"
) -> str:
    named = [(plugin.__name__.lower(), plugin) for plugin in plugins]
    with pytest.raises(BadInput) as refusal:
        check_composition(learner, learner.__name__.lower(), named, MemorySettings(budget=budget), labels)
    sentence = str(refusal.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("learner", "plugins"),
    [(Plain, []), (Plain, [Prior, Resampled, Wrapper]), (Plain, [Margin, TwoSlots]), (OwnSampler, [Prior, Wrapper]),
     (Proxies, [Resampled, TwoSlots]), (Plain, [NeedsLinear, Prior])],
)  # fmt: skip
def test_what_fits_is_taken(learner: type[Learner], plugins: list[type[Plugin]]):
    named = [(plugin.__name__, plugin) for plugin in plugins if learner is not Proxies or plugin is Resampled]
    assert check_composition(learner, "x", named, MemorySettings(), "single") is None


@pytest.mark.parametrize(
    ("learner", "plugins", "words"),
    [
        (
            Proxies,
            [Prior],
            ["prior replaces the classification criterion", "proxies brings its own (NCA on proxies)"],
        ),
        (OwnSampler, [Resampled], ["resampled replaces the sampler", "ownsampler brings its own"]),
        (Plain, [Prior, Margin], ["prior and margin both claim the criterion", "leave one out"]),
        (Plain, [Resampled, TwoSlots], ["resampled and twoslots both claim the sampler"]),
        (Plain, [Wrapper, Prior, Wrapper], ["wrapper is there twice in plain+wrapper+prior+wrapper"]),
        (Plain, [NeedsLinear, NeedsLinear], ["needslinear is there twice"]),
        (Proxies, [NeedsLinear], ["needslinear needs a linear head", "proxies has a cosine one"]),
        (Plain, [NeedsLinear, Margin], ["margin needs a cosine head", "plain+needslinear has a linear one"]),
    ],
)
def test_a_conflict_is_one_sentence_that_names_both_sides_and_the_slot(
    learner: type[Learner], plugins: list[type[Plugin]], words: list[str]
):
    sentence = refused(learner, *plugins)
    assert all(part in sentence for part in words), sentence


def test_kinds_of_labels_must_agree():
    assert "plain learns from single labels; this protocol has multi ones" in refused(Plain, labels="multi")
    assert "prior works on single labels; this protocol has multi ones" in refused(
        OwnSampler, Prior, labels="multi"
    )


def test_a_prior_on_balanced_draws_is_allowed_and_said():
    kinds = {name: load_plugin(name) for name in ("balanced_softmax", "class_balanced_sampling", "focal")}
    chosen = lambda *names: [(name, kinds[name]) for name in names]  # noqa: E731
    twice = "balanced_softmax with class_balanced_sampling corrects the class sizes twice."
    assert composition_notes(chosen("class_balanced_sampling", "balanced_softmax")) == [twice]
    assert composition_notes(chosen("class_balanced_sampling", "focal")) == []


@pytest.mark.parametrize("budget", ["0", "0/class"])
def test_a_learner_that_requires_a_memory_refuses_none(budget: str):
    assert "proxies needs an exemplar memory, and --memory 0 leaves none" in refused(Proxies, budget=budget)


def test_the_last_written_criterion_is_outermost():
    made = plugins(Prior, Margin).criterion(lambda *arguments: 10)
    assert made(None, None, None, slice(0)) == 2 * 10 + 1
    assert plugins(Margin, Prior).criterion(lambda *arguments: 10)(None, None, None, slice(0)) == 2 * (10 + 1)


@pytest.mark.parametrize(("kind", "fits"), [("linear", False), ("cosine", True), ("own", False)])
def test_the_head_that_came_out_must_suit_everyone(kind: str, fits: bool):
    spec = NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind=kind))
    learner = Plain(Plain.Config(), "plain")
    if fits:
        assert check_head(spec, learner, plugins(Margin)) is None
        return
    with pytest.raises(BadInput, match=f"needs a cosine.* head, but the network has a {kind} one"):
        check_head(spec, learner, plugins(Margin))
