"""MORE beside adapters: resting weights and a general adapter as W_g, a tail adapter of a tenth of its rank as B A.

The ten checks of the convolutional split, on a small transformer.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from killed import assert_same_run, finished, kill_after
from more_steps import IMAGES, ZERO_TERM, assert_no_discrepancy, open_stage, opened
from steps import batch_of, begun
from tiny import all_scores, tiny_plan, tiny_runner
from torch import Tensor, nn

from imbcil.harness.base.errors import BadInput
from imbcil.harness.network.adapters import AdaptedQkv, LowRankAdapter, adapt, adapters_of
from imbcil.harness.network.backbones import BACKBONES
from imbcil.harness.network.network import Network, clone
from imbcil.harness.network.vit import ViT, ViTPlan
from imbcil.harness.runner import Runner
from imbcil.harness.weights_request import check_backbones
from imbcil.methods.plugins._split import LowRank, general_only, general_weight, split_modules, tail_shapes
from imbcil.methods.plugins.more import MORE, MOREConfig, discrepancy

MORE_ADAPTERS: dict[str, Any] = {"more.layers": "adapters"}


@pytest.fixture(autouse=True)
def _narrow_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer whose tokens are 16 wide, for the clock's sake."""
    monkeypatch.setitem(BACKBONES, "vit_narrow", narrow)


def narrow(lora_rank: int, **others: Any) -> nn.Module:
    made = ViT(ViTPlan(16, 2, depth=3, size=8), opts={"lora_rank": lora_rank, **others})
    adapt(made, lora_rank, "vit_narrow")
    return made


def recipe(rank: int = 4, epochs: int = 1, lr: float = 0.05) -> dict[str, Any]:
    return {
        "backbone": {"name": "vit_narrow", "options": {"lora_rank": rank}},
        "train": {"epochs": epochs, "batch": 8, "lr": lr, "weight_decay": 5e-4},
    }


def runner_of(method: str, store: Path, settings: dict[str, Any] | None = None, **options: Any) -> Runner:
    given = {**(MORE_ADAPTERS if "more" in method else {}), **(settings or {})}
    return tiny_runner(method, store, settings=given, recipe=recipe(**options))


def inside(store: Path, phase: int = 0, **settings: Any) -> Network:
    """The network of a run within a phase's first stage: split, the general adapters trained for `phase` phases."""
    given = {**MORE_ADAPTERS, **{f"more.{name}": value for name, value in settings.items()}}
    runner, _ = opened("replay+more", store, phase, settings=given, recipe=recipe())
    return runner.learner.net


def stirred(net: Network) -> Network:
    """General adapters and tails away from zero."""
    for seed, part in enumerate(split_modules(net).values()):
        generator = torch.Generator().manual_seed(seed)
        for value in (part.up, *part.tail.parameters()):  # type: ignore[misc]
            nn.init.normal_(value, std=0.1, generator=generator)
    return net


def unwrapped(net: Network, **settings: Any) -> Network:
    MORE(MOREConfig(layers="adapters", **settings), "more").unwrap(net)
    net.wraps.clear()
    return net


# --- the split ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["kaiming", "both"])
def test_splitting_changes_no_output_and_takes_every_adapter(init: str, tmp_path: Path) -> None:
    plain, _ = begun("replay+more", tmp_path / "plain", 1, settings=MORE_ADAPTERS, recipe=recipe())
    runner, _ = begun("replay+more", tmp_path / "split", 1, settings=MORE_ADAPTERS, recipe=recipe())
    runner.plugins.items[0].cfg = MOREConfig(layers="adapters", init=init)  # the phases before are the same
    open_stage(runner)
    net = runner.learner.net.eval()
    assert list(split_modules(net)) == [
        f"backbones.0.blocks.{block}.attn.qkv.{part}" for block in range(3) for part in "qv"
    ]
    before = plain.learner.net.eval()(IMAGES).logits
    assert torch.allclose(net(IMAGES).logits, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rank", "ratio", "tail"), [(4, 0.1, 1), (16, 0.1, 2), (64, 0.1, 6), (8, 0.5, 4)])
def test_the_tails_rank_is_a_tenth_of_the_adapters_and_at_least_one(
    rank: int, ratio: float, tail: int
) -> None:
    adapter = LowRankAdapter(192, 96, rank)
    assert tail_shapes(adapter, ratio, "matrix") == ((96, tail), (tail, 192))


@pytest.mark.parametrize("split", ["low_rank", "random"])
def test_folding_changes_no_output_and_leaves_the_learners_own_keys(split: str, tmp_path: Path) -> None:
    net = stirred(inside(tmp_path / "a", split=split)).eval()
    before = net(IMAGES).logits
    with general_only(net, "batch"):
        assert not torch.allclose(net(IMAGES).logits, before, rtol=0, atol=1e-3)
    unwrapped(net)
    assert torch.allclose(net(IMAGES).logits, before, rtol=0, atol=1e-5)
    bare = runner_of("replay", tmp_path / "b")
    bare._run_phase()
    shapes = {name: value.shape for name, value in bare.learner.net.state_dict().items()}
    assert {name: value.shape for name, value in net.state_dict().items()} == shapes
    assert torch.equal(clone(net).eval()(IMAGES).logits, net(IMAGES).logits)


def test_discarding_leaves_the_general_weights(tmp_path: Path) -> None:
    net = stirred(inside(tmp_path)).eval()
    with general_only(net, "batch"):
        general = net(IMAGES).logits
    assert torch.equal(unwrapped(net, policy="discard")(IMAGES).logits, general)


def test_the_general_adapter_takes_the_best_its_rank_allows_and_the_resting_weight_the_remainder() -> None:
    """Against a singular value decomposition by numpy; keys are never touched."""
    torch.manual_seed(0)
    layer = AdaptedQkv(nn.Linear(12, 36), rank=3)
    for part in (layer.q, layer.v):
        nn.init.normal_(part.up)
    rested, size = layer.weight.clone(), layer.q.down.norm()
    change = torch.randn(12, 1) @ torch.randn(1, 12)
    wanted, whole = (layer.q.delta() + change).detach(), (layer.whole("q") + change).detach()
    values_whole = layer.whole("v").detach()
    layer.absorb("q", change)
    left, values, right = torch.linalg.svd(wanted.double())
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert values[3] > 1e-3  # four ranks do not fit in three
    torch.testing.assert_close(layer.q.delta().double(), best, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.whole("q"), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.q.down.norm(), size)
    assert torch.equal(layer.weight[12:], rested[12:])
    layer.absorb("v", change)
    torch.testing.assert_close(layer.whole("v"), values_whole + change, rtol=0, atol=1e-5)
    assert torch.equal(layer.weight[12:24], rested[12:24])


def test_nothing_to_absorb_leaves_every_bit() -> None:
    layer = AdaptedQkv(nn.Linear(6, 18), rank=2)
    nn.init.normal_(layer.q.up)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.absorb("q", torch.zeros(6, 6))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_only_adapters_train_and_with_them_their_tails(tmp_path: Path) -> None:
    net = inside(tmp_path)
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    parts = {f"{name}.{leaf}" for name in split_modules(net) for leaf in ("up", "down", "tail.a", "tail.b")}
    assert {name for name in trained if name.startswith("backbones.")} == parts


# --- the discrepancy ------------------------------------------------------------------------------------------------


def test_the_general_pass_is_the_network_without_tails_and_writes_no_buffer(tmp_path: Path) -> None:
    net = stirred(inside(tmp_path)).train()
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    with general_only(net, "batch"):
        general = net(IMAGES).logits
    whole = net(IMAGES).logits
    for part in split_modules(net).values():
        for value in part.tail.parameters():
            nn.init.zeros_(value)
    torch.testing.assert_close(net(IMAGES).logits, general)
    assert not torch.allclose(whole, general, rtol=0, atol=1e-3)
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())


def test_without_a_tail_there_is_no_discrepancy_and_no_gradient(tmp_path: Path) -> None:
    settings = {**MORE_ADAPTERS, "more.schedule": "constant"}
    assert_no_discrepancy(opened("replay+more", tmp_path, settings=settings, recipe=recipe())[0])


@pytest.mark.parametrize(("phase", "classes"), [(0, 3), (2, 6)])
def test_alpha_is_zero_at_both_ends_and_the_amplitude_times_the_classes_in_between(
    phase: int, classes: int, tmp_path: Path
) -> None:
    settings = {**MORE_ADAPTERS, "more.amplitude": 0.5, "more.init": "both"}
    runner, stage = opened("replay+more", tmp_path, phase, settings=settings, recipe=recipe())
    net, batch = runner.learner.net.eval(), batch_of(runner, stage.pool)  # type: ignore[arg-type]
    out = net(batch.images)
    with general_only(net, "batch"):
        squares = (out.logits - net(batch.images).logits).square()
    bare = discrepancy(squares, batch, "per_label", len(batch.targets))[0].item()
    assert bare > 0
    for step, factor in ((0, 0.0), (4, 1.0), (8, 0.0)):
        batch.epoch, batch.step, batch.steps, batch.total = 0, step, 8, 8
        found = runner.plugins.items[0].extra_loss(batch, out, runner.learner)["more"].item()
        assert found == pytest.approx(0.5 * classes * factor * bare, rel=1e-5, abs=1e-6 * bare)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_amplitude_zero_is_the_run_whose_term_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "zero.py").write_text(ZERO_TERM)
    control = runner_of("replay+more", tmp_path / "a", {"more.amplitude": 0})
    zeroed = tiny_runner(
        f"replay+{tmp_path}/zero.py", tmp_path / "b", settings={"zero.layers": "adapters"}, recipe=recipe()
    )
    zeroed.plugins.items[0].name = "more"  # the name keys the tails' draws
    control.run()
    zeroed.run()
    wanted = all_scores(zeroed.s.folder)
    assert all((scores == wanted[name]).all() for name, scores in all_scores(control.s.folder).items())
    plain = runner_of("replay", tmp_path / "c")
    plain.run()
    assert (all_scores(plain.s.folder)["2/test/fc"] != wanted["2/test/fc"]).any()


@pytest.mark.parametrize("policy", ["merge", "keep", "freeze-stack", "resplit", "discard"])
def test_every_policy_starts_a_phase_from_the_function_it_ended_with(policy: str, tmp_path: Path) -> None:
    """From the second of two phases: what was folded, put back, stacked or taken apart adds up to the same network."""
    settings = {**MORE_ADAPTERS, "more.policy": policy}
    runner = tiny_runner("replay+more", tmp_path / "a", settings=settings, recipe=recipe())
    runner._run_phase()
    runner._run_phase()
    before = runner.learner.net.eval()(IMAGES).logits
    again, _ = opened("replay+more", tmp_path / "b", 2, settings=settings, recipe=recipe())
    net = again.learner.net.eval()
    assert torch.allclose(net(IMAGES).logits[:, :4], before, rtol=0, atol=1e-5)
    tails = max(part.tail().abs().max().item() for part in split_modules(net).values())
    assert (tails > 0) == (policy in ("keep", "resplit"))
    assert (policy == "freeze-stack") == any(
        bool(part.stacked.any()) for part in split_modules(net).values() if "stacked" in part._buffers
    )


def test_resplitting_takes_the_best_part_of_all_that_changed_since_the_first_phase(tmp_path: Path) -> None:
    settings = {**MORE_ADAPTERS, "more.policy": "resplit"}
    runner, _ = opened("replay+more", tmp_path, 1, settings=settings, recipe=recipe())
    net, anchors = runner.learner.net, runner.plugins.items[0].state["anchor"]
    for name, part in split_modules(net).items():
        assert isinstance(part.tail, LowRank)
        change = (general_weight(net, name) + part.added() - anchors[name]).detach()
        expected = LowRank(change.shape, tail_shapes(part, 0.1, "matrix"), 1.0)
        expected.take(change)
        torch.testing.assert_close(part.tail(), expected(), rtol=0, atol=1e-5)


def gap_by_class(store: Path) -> Tensor:
    settings = {**MORE_ADAPTERS, "more.amplitude": 2.0, "more.schedule": "constant"}
    runner = tiny_runner("replay+more", store, settings=settings, recipe=recipe(epochs=100, lr=0.01), seed=1)
    runner._run_phase()
    return runner.learner.tools.logged_per_class["more_discrepancy"]


def test_after_a_short_run_the_discrepancy_is_larger_on_rare_than_on_frequent_classes(tmp_path: Path) -> None:
    found = gap_by_class(tmp_path)
    assert found[1] > 1.25 * found[0]


@pytest.mark.parametrize(
    ("method", "settings"),
    [("icarl+more", {}), ("replay+more", {"more.policy": "keep"}), ("replay+more", {"more.policy": "freeze-stack"}),
     ("podnet+more+two_stage", {})],
)  # fmt: skip
def test_a_killed_run_ends_bit_identical(method: str, settings: dict[str, Any], tmp_path: Path) -> None:
    ends_bit_identical(method, settings, 9, recipe(), tmp_path)


def test_a_killed_run_of_a_real_transformer_ends_bit_identical(tmp_path: Path) -> None:
    shape = {"depth": 3, "lora_rank": 16}  # for pictures of 32 pixels
    real = {**recipe(), "backbone": {"name": "vit_tiny", "options": shape}}
    ends_bit_identical("icarl+more", {}, 6, real, tmp_path)


def ends_bit_identical(
    method: str, settings: dict[str, Any], saves: int, chosen: dict[str, Any], tmp_path: Path
) -> None:
    options = {"settings": {**MORE_ADAPTERS, **settings}, "recipe": chosen}
    whole = finished(method, tmp_path / "whole", **options)
    kill_after(method, tmp_path / "cut", saves, **options)
    resumed = finished(method, tmp_path / "cut", **options)
    assert_same_run(whole, resumed)
    assert len(adapters_of(resumed.learner.net)) == 6
    assert not [name for name in resumed.learner.net.state_dict() if "tail" in name or "stacked" in name]


# --- before training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "layers", "sentence"),
    [({"name": "vit_tiny", "options": {"lora_rank": 2}}, "conv", "use --set more.layers=adapters"),
     ({"name": "vit_tiny"}, "adapters", "use --set more.layers=conv or linear or both"),
     ({"name": "tiny"}, "linear", "use --set more.layers=conv or both")],
)  # fmt: skip
def test_layers_that_the_backbone_does_not_train_are_refused_and_others_named(
    backbone: dict[str, Any], layers: str, sentence: str, tmp_path: Path
) -> None:
    given = {"backbone": backbone}
    run, _ = tiny_plan("replay+more", tmp_path, settings={"more.layers": layers}, recipe=given)
    with pytest.raises(BadInput, match=f"more.layers = {layers}: .*{sentence}"):
        check_backbones([run.plan], None)


@pytest.mark.parametrize(("layers", "said"), [("conv", 1), ("linear", 0), ("both", 0)])
def test_a_split_of_the_lesser_part_of_a_transformer_is_said(layers: str, said: int, tmp_path: Path) -> None:
    given = {"backbone": {"name": "vit_tiny"}}
    run, _ = tiny_plan("replay+more", tmp_path, settings={"more.layers": layers}, recipe=given)
    sentences = check_backbones([run.plan], None)
    assert [sentence.startswith("more.layers = conv splits 0.2%") for sentence in sentences] == [True] * said
