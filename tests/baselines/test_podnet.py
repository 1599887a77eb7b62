"""PODNet: its two distances, the three forms of its classification loss, the proxies, and what rests."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bare import a_batch, bare
from steps import begun
from tiny import tiny_runner
from torch import Tensor

from imbcil.baselines.podnet import PODNetConfig
from imbcil.harness.clustering import kmeans
from imbcil.harness.contract import Phase
from imbcil.harness.loop import StageContext
from imbcil.harness.losses import cosine_distance, nca, pod_spatial
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.heads import ProxyHead
from imbcil.harness.network.network import ModuleSpec, NetSpec, freeze
from imbcil.harness.pools import Pool
from imbcil.harness.recipes import load_recipe

LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.25, 3.0]], dtype=torch.float64)
TARGETS = torch.tensor([1, 0])


def maps(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, s, s, generator=generator, dtype=torch.float64) for c, s in ((2, 4), (3, 2))]


def pod_by_hand(mine: list[Tensor], theirs: list[Tensor]) -> float:
    def vector(image: Tensor) -> list[float]:
        channels, height, width = image.shape
        values = [
            sum(float(image[c, h, w]) ** 2 for w in range(width))
            for c in range(channels)
            for h in range(height)
        ]
        values += [
            sum(float(image[c, h, w]) ** 2 for h in range(height))
            for c in range(channels)
            for w in range(width)
        ]
        length = math.sqrt(sum(value * value for value in values))
        return [value / length for value in values]

    levels = [
        sum(math.dist(vector(a), vector(b)) for a, b in zip(left, right, strict=True)) / len(left)
        for left, right in zip(mine, theirs, strict=True)
    ]
    return sum(levels) / len(levels)


def test_pod_is_the_distance_of_pooled_squares_averaged_over_levels() -> None:
    assert float(pod_spatial(maps(1), maps(2))) == pytest.approx(pod_by_hand(maps(1), maps(2)), abs=1e-12)


def test_pod_is_zero_for_equal_maps_and_blind_to_a_positive_scale() -> None:
    assert float(pod_spatial(maps(1), maps(1))) == 0.0
    scaled = [3.0 * values for values in maps(1)]
    assert float(pod_spatial(scaled, maps(2))) == pytest.approx(
        float(pod_spatial(maps(1), maps(2))), abs=1e-12
    )


def test_pod_flat_runs_from_zero_for_one_direction_to_two_for_opposite_ones() -> None:
    features = torch.randn(4, 5)
    assert float(cosine_distance(3 * features, features)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(-features, features)) == pytest.approx(2, abs=1e-6)


def test_the_released_nca_has_one_instead_of_the_positive_in_its_sum() -> None:
    expected = []
    for row, label in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        top = max(row)
        others = sum(math.exp(value - top) for number, value in enumerate(row) if number != label)
        expected.append(math.log(1 + others) - (row[label] - top))
    assert float(nca(LOGITS, TARGETS)) == pytest.approx(sum(expected) / 2, abs=1e-12)


def test_the_papers_nca_leaves_the_positive_out_and_is_hinged_at_zero() -> None:
    margin = torch.tensor(0.6, dtype=torch.float64)
    first = math.log(math.exp(1) + math.exp(-1)) - (2 - 0.6)
    second = math.log(math.exp(0.25) + math.exp(3)) - (0.5 - 0.6)
    assert first < 0 < second
    assert float(nca(LOGITS, TARGETS, margin)) == pytest.approx(second / 2, abs=1e-12)


@pytest.mark.parametrize(("form", "depends"), [("paper", True), ("released", False), ("ce", False)])
def test_the_margin_matters_in_the_papers_form_alone(form: str, depends: bool) -> None:
    def value(margin: float) -> float:
        learner, batch = bare("podnet", 3, nca=form, margin=margin), a_batch([0, 1, 2, 1], 3)
        return float(learner.classification(batch, learner.net(batch.images))["nca"].detach())

    assert (value(0.0) != value(5.0)) is depends


def test_nca_of_a_single_class_is_finite_with_finite_gradients() -> None:
    logits = torch.zeros(3, 1, requires_grad=True)
    value = nca(logits, torch.zeros(3, dtype=torch.int64), torch.tensor(0.6))
    value.backward()
    assert math.isfinite(float(value)) and bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("distance", [True, False])
def test_proxies_are_merged_by_their_own_softmax(distance: bool) -> None:
    torch.manual_seed(0)
    head = ProxyHead(4, proxies=2, scale=1.5, distance=distance)
    head.grow(2)
    head.grow(1)
    head, features = head.double(), torch.randn(3, 4, dtype=torch.float64)
    logits = head(features, [])["logits"]
    for row in range(3):
        for label in range(3):
            parts = []
            for proxy in head.weight[2 * label : 2 * label + 2]:
                a, b = features[row] / features[row].norm(), proxy / proxy.norm()
                parts.append(float(-(a - b).square().sum() if distance else a @ b))
            weights = [math.exp(part) for part in parts]
            merged = sum(w * p for w, p in zip(weights, parts, strict=True)) / sum(weights)
            assert float(logits[row, label]) == pytest.approx(1.5 * merged, abs=1e-12)


def test_a_proxy_head_takes_an_empty_batch() -> None:
    head = ProxyHead(4)
    head.grow(2)
    assert head(torch.empty(0, 4), [])["logits"].shape == (0, 2)


def test_both_distillations_grow_with_the_root_of_all_classes_over_new_ones() -> None:
    learner, batch = bare("podnet", 3), a_batch([0, 1, 3, 4], 5)
    learner.state["old"] = freeze(bare("podnet", 3, seed=7).net)
    learner.net.grow(2)
    out = learner.net(batch.images)
    old = learner.state["old"](batch.images)
    terms = learner.loss(batch, out)
    growth = math.sqrt(5 / 2)
    assert float(terms["pod_spatial"]) == pytest.approx(3 * growth * float(pod_spatial(out.maps, old.maps)))
    assert float(terms["pod_flat"]) == pytest.approx(
        growth * float(cosine_distance(out.features, old.features))
    )


def designed(**settings: Any) -> ModuleSpec:
    spec = NetSpec(backbones=(ModuleSpec(kind="resnet32_conv"),), head=ModuleSpec(kind="linear"))
    return bare("podnet", **settings).design(spec).backbones[0]


def levels(part: ModuleSpec) -> list[Tensor]:
    torch.manual_seed(0)
    maps: list[Tensor] = build_backbone(part.kind, **part.options)(torch.randn(1, 3, 16, 16))["maps"]
    return maps


def test_levels_are_those_named() -> None:
    four = levels(designed(zero_init=False))
    assert [tuple(level.shape[1:]) for level in four] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 4, 4)]
    assert not torch.equal(four[2], four[3])
    assert len(levels(designed(levels="stages"))) == 3


def test_blocks_start_as_the_identity_and_no_relu_follows_an_addition() -> None:
    before_last, last = levels(designed())[-2:]
    assert torch.equal(before_last, last)
    assert bool((last < 0).any())


@pytest.mark.parametrize("name", ["krt", "quick-ml"])
def test_recipes_of_several_labels_leave_podnet_the_backbone_of_all_learners(name: str) -> None:
    recipe = load_recipe(name)
    part = designed(**{key: value for key, value in recipe.learners["podnet"].items() if key != "train"})
    kind = recipe.backbone.name
    torch.manual_seed(0)
    plain = build_backbone(kind)
    torch.manual_seed(0)
    mine = build_backbone(kind, **part.options)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = plain.eval()(images), mine.eval()(images)
    assert torch.equal(expected["features"], found["features"])
    assert len(found["maps"]) == len(expected["maps"])  # its stages


def test_a_backbone_that_keeps_its_relus_is_written_out_and_podnets_own_is_not() -> None:
    assert "post_add_relu" not in PODNetConfig().model_dump()
    assert PODNetConfig(post_add_relu=True).model_dump()["post_add_relu"]


def test_long_tailed_cils_port_has_padded_shortcuts_and_no_zero_initialisation() -> None:
    part = designed(**bare("podnet").presets["released"])
    assert part.kind == "resnet32_pad" and not part.options["zero_init"]


def test_kmeans_finds_separate_clusters_and_never_gives_equal_centres() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    points = corners.repeat(20, 1) + 0.1 * torch.randn(60, 2, generator=generator)
    centres = kmeans(points, 3, generator)
    means = torch.stack([points[start::3].mean(dim=0) for start in range(3)])
    assert torch.allclose(torch.cdist(means, centres).min(dim=1).values, torch.zeros(3), atol=1e-5)
    few = kmeans(points[:2], 5, generator)
    assert torch.equal(few[:2], points[:2])
    assert float(torch.pdist(few).min()) > 0
    assert kmeans(torch.ones(4, 2), 3, generator).shape == (3, 2)


def test_new_proxies_get_the_mean_norm_of_the_old_ones(tmp_path: Path) -> None:
    runner = tiny_runner("podnet", tmp_path)
    seen: list[float] = []
    original = type(runner.learner).begin_phase

    def watched(phase: Phase) -> None:
        original(runner.learner, phase)
        if phase.index == 2:
            head, new = runner.learner.net.head, runner.learner.net.head.blocks[-1].weight
            old = head.weight[: -len(new)].norm(dim=1).mean()
            wanted = runner.learner.new_proxies(phase) * old
            assert torch.allclose(new, wanted, atol=1e-6)
            seen.append(float(wanted.norm()))

    object.__setattr__(runner.learner, "begin_phase", watched)
    runner.run()
    assert seen and seen[0] > 0


def test_old_proxies_are_bit_identical_after_the_main_stage(tmp_path: Path) -> None:
    runner = tiny_runner("podnet", tmp_path, settings={"podnet.finetune_share": 0.0})
    held: dict[int, Tensor] = {}
    original = runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        before = [block.weight.clone() for block in runner.learner.net.head.blocks]
        original(phase, stage)
        for old, block in zip(before[:-1], list(runner.learner.net.head.blocks)[:-1], strict=True):
            assert torch.equal(old, block.weight)
        assert not torch.equal(before[-1], runner.learner.net.head.blocks[-1].weight)
        held[phase.index] = before[-1]

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert set(held) == {0, 1, 2}


@pytest.mark.parametrize("old", ["truncate", "reselect"])
@pytest.mark.parametrize("memory", ["4/class", "9"])
def test_the_last_stage_tunes_the_proxies_alone_on_what_the_memory_will_hold(
    memory: str, old: str, tmp_path: Path
) -> None:
    """The authors herd first, then tune the classifier on the exemplars; the scale is no part of their classifier."""
    runner = tiny_runner("podnet", tmp_path, recipe={"memory": {"budget": memory, "old": old}}, memory=memory)
    drawn: dict[int, Pool] = {}
    original = runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        before = {name: value.clone() for name, value in runner.learner.net.state_dict().items()}
        original(phase, stage)
        if stage.name == "classifier":
            after = runner.learner.net.state_dict()
            moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
            assert moved and all(name.startswith("head.blocks.") for name in moved)

    def step(context: StageContext, images: int) -> None:
        if context.stage.name == "classifier":
            drawn[runner.place.phase] = context.pool

    runner._run_stage, runner._after_step = watched, step  # type: ignore[method-assign]
    for phase in range(3):
        runner._run_phase()
        if phase:
            assert drawn[phase].index.tolist() == runner.learner.memory.index.tolist()
    assert set(drawn) == {1, 2}


def test_without_a_memory_there_is_no_last_stage(tmp_path: Path) -> None:
    runner, phase = begun("podnet", tmp_path, memory="0")
    last = runner.learner.stages(phase)[-1]
    assert last.name == "classifier" and callable(last.pool) and not len(last.pool())


def test_gradients_are_clamped_element_by_element(tmp_path: Path) -> None:
    runner = tiny_runner("podnet", tmp_path)
    phase_stages: list[float | None] = []
    original = runner._run_stage

    def watched(phase: Phase, stage: Any) -> None:
        phase_stages.append(stage.optim.clamp)
        original(phase, stage)

    runner._run_stage = watched  # type: ignore[method-assign]
    runner.run()
    assert set(phase_stages) == {5.0}


@pytest.mark.parametrize("preset", ["released", "sound"])
def test_both_presets_run_and_give_two_predictors(preset: str, tmp_path: Path) -> None:
    runner = tiny_runner("podnet", tmp_path, preset=preset)
    runner.run()
    assert {"test/fc", "test/nme"} <= runner.s.folder.load_scores(2).keys()
