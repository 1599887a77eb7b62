"""MORE: the split is exact, the discrepancy is the formula, and nothing of it is left after a phase."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from more_steps import IMAGES, assert_no_discrepancy, network, opened, wrapped
from steps import batch_of, begun, outputs
from tiny import tiny_plan, tiny_runner
from torch import nn

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import learner_names, load_learner
from imbcil.harness.batch import Batch, Outputs
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.network import Network, freeze
from imbcil.methods.plugins._split import LowRank, Scattered, factor_shapes, general_only, split_modules
from imbcil.methods.plugins.more import MORE, MOREConfig, compared_logits, discrepancy, schedule_factor

SINGLE = [name for name in learner_names() if "single" in load_learner(name).needs.labels]


# --- the split ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["kaiming", "normal", "both"])
@pytest.mark.parametrize("mapping", ["matrix", "kernel"])
def test_splitting_changes_no_output(init: str, mapping: str, tmp_path: Path) -> None:
    settings = {"more.init": init, "more.mapping": mapping}
    runner, _ = begun("replay+more", tmp_path / "plain", 0, settings=settings)
    plain = runner.learner.net.eval()(IMAGES).logits
    runner, _ = opened("replay+more", tmp_path / "split", 0, settings=settings)
    assert split_modules(runner.learner.net)
    assert torch.allclose(runner.learner.net.eval()(IMAGES).logits, plain, rtol=0, atol=1e-6)


def test_only_trained_convolutions_are_split_and_a_setting_adds_linear_layers() -> None:
    net = network()
    net.get_parameter("backbones.0.layer1.0.conv1.weight").requires_grad_(False)
    convolutions = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(MORE(MOREConfig(), "more").wrap(net)) == convolutions - {"backbones.0.layer1.0.conv1"}
    net = network()
    net.backbones[0].extra = nn.Linear(4, 4)
    assert MORE(MOREConfig(layers="linear"), "more").wrap(net) == ["backbones.0.extra"]


def test_ranks_and_extra_parameters_of_resnet32_are_those_of_the_facts() -> None:
    convolutions = [m for m in build_backbone("resnet32_pad").modules() if isinstance(m, nn.Conv2d)]
    sizes = [
        sum(math.prod(part) for part in factor_shapes(m.weight.shape, 0.1, "matrix")) for m in convolutions
    ]
    ranks = {m.out_channels: factor_shapes(m.weight.shape, 0.1, "matrix")[0][1] for m in convolutions}
    assert len(convolutions) == 31
    assert ranks == {16: 2, 32: 3, 64: 6}
    assert sum(m.weight.numel() for m in convolutions) == 461_232
    assert sum(sizes) == 49_126


def test_the_kernel_mapping_is_that_of_loralib() -> None:
    weight = torch.empty(16, 8, 3, 3)
    assert factor_shapes(weight.shape, 0.25, "kernel") == ((48, 6), (6, 24))
    part = LowRank(weight.shape, factor_shapes(weight.shape, 0.25, "kernel"), scale=0.5)
    part.draw("both", torch.Generator().manual_seed(0))
    assert torch.allclose(part(), 0.5 * (part.b @ part.a).view(16, 8, 3, 3))


def test_the_random_control_frees_as_many_entries_as_the_factors_have() -> None:
    shape = torch.Size((16, 16, 3, 3))
    part = Scattered(shape, factor_shapes(shape, 0.1, "matrix"), 1.0)
    part.draw("kaiming", torch.Generator().manual_seed(0))
    assert part.values.numel() == 2 * (16 + 144)
    nn.init.ones_(part.values)
    assert part().sum() == part.values.numel()
    assert set(part().unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("split", ["low_rank", "random"])
def test_folding_changes_no_output_and_leaves_the_plain_network(split: str) -> None:
    plugin, net = wrapped(split=split)
    plain = network().state_dict().keys()
    before = net.eval()(IMAGES).logits
    plugin.unwrap(net)
    assert torch.allclose(net(IMAGES).logits, before, rtol=0, atol=1e-5)
    assert net.state_dict().keys() == plain
    assert {type(module) for module in net.modules()} == {type(module) for module in network().modules()}


@pytest.mark.parametrize("name", SINGLE)
def test_merging_changes_no_logit_of_any_learner_and_leaves_no_key(name: str, tmp_path: Path) -> None:
    runner, gaps = tiny_runner(f"{name}+more", tmp_path), []
    unwrap = runner.plugins.unwrap

    def compared(net: Network) -> None:
        modes = [(module, module.training) for module in net.modules()]
        before = net.eval()(IMAGES).logits if net.wraps else None
        unwrap(net)
        if before is not None:
            gaps.append((net(IMAGES).logits - before).abs().max().item())
        for module, training in modes:
            module.training = training

    runner.plugins.unwrap = compared  # type: ignore[method-assign]
    for _ in range(2):
        runner._run_phase()
    assert len(gaps) == 2
    assert max(gaps) <= 1e-5
    assert not [key for key in runner.learner.net.state_dict() if "tail" in key or "stacked" in key]
    freeze(runner.learner.net)


def test_a_wrapped_network_shows_the_whole_weight_to_those_who_anchor_it() -> None:
    _, net = wrapped()
    name = "backbones.0.conv1.weight"
    added = net.get_submodule("backbones.0.conv1").added()  # type: ignore[operator]
    assert added.abs().max() > 0
    assert torch.equal(net.effective(name), net.get_parameter(name) + added)


# --- the general pass -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_the_general_pass_runs_on_the_general_weights_and_writes_no_statistics(norm: Any) -> None:
    _, net = wrapped()
    plain = network()
    for name, value in plain.named_parameters():
        value.data.copy_(net.get_parameter(name))
    net.train()
    plain.train(norm == "batch")
    before = {name: value.clone() for name, value in net.named_buffers()}
    with general_only(net, norm):
        general = net(IMAGES).logits
    assert torch.allclose(general, plain(IMAGES).logits, atol=1e-6)
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name
    assert all(module.training for module in net.modules())
    assert not torch.allclose(net(IMAGES).logits, general)
    assert any(not torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_without_a_tail_there_is_no_discrepancy_and_no_gradient(tmp_path: Path) -> None:
    assert_no_discrepancy(opened("replay+more", tmp_path, settings={"more.schedule": "constant"})[0])


@pytest.mark.parametrize(("stop", "moved"), [("none", True), ("full", False), ("general", True)])
def test_the_tail_learns_from_the_discrepancy_unless_its_branch_is_stopped(
    stop: str, moved: bool, tmp_path: Path
) -> None:
    settings = {"more.schedule": "constant", "more.stop": stop, "more.init": "both"}
    runner, _ = opened("replay+more", tmp_path, settings=settings)
    net = runner.learner.net.eval()
    batch = batch_of(runner, runner._phase_view().new)
    runner.plugins.items[0].extra_loss(batch, net(batch.images), runner.learner)["more"].backward()
    grads = [value.grad for part in split_modules(net).values() for value in part.tail.parameters()]
    assert any(grad is not None and bool(grad.any()) for grad in grads) == moved


# --- the loss -------------------------------------------------------------------------------------------------------


def single_batch(targets: list[int], counts: list[float], **more: Any) -> Batch:
    labels = torch.tensor(targets)
    return Batch(
        images=torch.zeros(len(labels), 3, 8, 8), targets=labels, mask=None, index=labels, slot=labels, stream=labels,
        counts=torch.tensor(counts), stage="train", epoch=0, step=0, steps=1, total=1, **more,
    )  # fmt: skip


def test_the_discrepancy_is_the_prior_times_the_squared_distance_over_delivered_classes() -> None:
    squares = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    batch = single_batch([0, 1], [30.0, 10.0, 0.0])
    loss, gaps = discrepancy(squares, batch, "per_label", images=40)
    assert gaps.flatten().tolist() == [3.0, 24.0]  # the third class is not delivered
    assert loss.item() == pytest.approx((0.75 * 3 + 0.25 * 24) / 2)


def test_a_mixed_image_has_the_mixed_prior() -> None:
    batch = single_batch([0], [30.0, 10.0], shares=torch.tensor([[0.6, 0.4]]))
    loss, _ = discrepancy(torch.tensor([[1.0, 1.0]]), batch, "per_label", images=40)
    assert loss.item() == pytest.approx(2 * (0.6 * 0.75 + 0.4 * 0.25))


def multi_batch() -> Batch:
    nan = float("nan")
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, nan], [0.0, 0.0, 0.0]])
    rows = torch.arange(3)
    return Batch(
        images=torch.zeros(3, 3, 8, 8), targets=targets, mask=~targets.isnan(), index=rows, slot=rows, stream=rows,
        counts=torch.tensor([4.0, 2.0, 1.0]), stage="train", epoch=0, step=0, steps=1, total=1,
    )  # fmt: skip


SQUARES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])


def test_with_several_labels_form_a_weights_each_visible_logit_by_its_class_share() -> None:
    loss, _ = discrepancy(SQUARES, multi_batch(), "per_label", images=8)
    rows = [0.5 * 1 + 0.25 * 2 + 0.125 * 3, 0.5 * 4 + 0.25 * 5, 0.5 * 7 + 0.25 * 8 + 0.125 * 9]
    assert loss.item() == pytest.approx(sum(rows) / 3)


def test_with_several_labels_form_b_weights_each_image_by_the_mean_share_of_its_positives() -> None:
    loss, _ = discrepancy(SQUARES, multi_batch(), "per_image", images=8)
    assert loss.item() == pytest.approx(((0.5 + 0.25) / 2 * 6 + 0.25 * 9 + 0.0) / 3)


def test_cosines_are_compared_without_the_heads_scale() -> None:
    logits, cosines = torch.full((1, 2), 30.0), torch.ones(1, 2)
    assert compared_logits(outputs(logits)) is logits
    for name in ("cos", "similarity"):
        assert compared_logits(Outputs(logits, logits, extras={name: cosines})) is cosines


@pytest.mark.parametrize(
    ("schedule", "start", "half", "end", "mean"),
    [("sine", 0, 1, 0, 2 / math.pi), ("constant", 1, 1, 1, 1), ("cosine", 1, 0.5, 0, 0.5), ("rising", 0, 0.5, 1, 0.5)],
)  # fmt: skip
def test_schedules_at_start_half_and_end(
    schedule: Any, start: float, half: float, end: float, mean: float
) -> None:
    for progress, factor in ((0.0, start), (0.5, half), (1.0, end)):
        assert schedule_factor(schedule, progress) == pytest.approx(factor, abs=1e-12)
    points = [schedule_factor(schedule, step / 1000) for step in range(1000)]
    assert sum(points) / 1000 == pytest.approx(mean, abs=2e-3)


def test_the_peak_grows_with_the_number_of_classes_that_the_loader_delivers(tmp_path: Path) -> None:
    """At half of the stage alpha is the peak: A' times the classes with a row."""
    for method, phase, classes in (("replay+more", 0, 3), ("replay+more", 2, 6), ("finetune+more", 2, 2)):
        runner, stage = opened(
            method,
            tmp_path / f"{method}{phase}",
            phase,
            settings={"more.amplitude": 0.5, "more.init": "both"},
        )
        net, batch = runner.learner.net.eval(), batch_of(runner, stage.pool)  # type: ignore[arg-type]
        batch.epoch, batch.step, batch.steps, batch.total = 1, 0, 4, 8
        out = net(batch.images)
        found = runner.plugins.items[0].extra_loss(batch, out, runner.learner)["more"]
        with general_only(net, "batch"):
            squares = (out.logits - net(batch.images).logits).square()
        expected = 0.5 * classes * discrepancy(squares, batch, "per_label", len(batch.targets))[0]
        assert found.item() > 0
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"more.amplitude": -1}, "more: amplitude = -1"),
        ({"more.amplitude": 21}, "more: amplitude = 21"),
        ({"more.rank_ratio": 0}, "more: rank_ratio = 0"),
        ({"more.rank_ratio": 1.5}, "more: rank_ratio = 1.5"),
        ({"more.policy": "resplit", "more.split": "random"}, "so it needs split = low_rank"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=sentence):
        tiny_plan("replay+more", tmp_path, settings=settings)
