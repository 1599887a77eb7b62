"""Phases of several labels an image: which images they hold, switches, identity, and the embedded dataset."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.arrange import Arrangement, DatasetLabels
from imbcil.protocols.arrange_multi import IGNORED, arrange_multi
from imbcil.protocols.datasets import glyphs_multi
from imbcil.protocols.datasets.glyphs_multi import draw_objects, render_block
from imbcil.protocols.datasets.source import CROWD, DIFFICULT
from imbcil.protocols.describe import scenario_lines, scenario_record
from imbcil.protocols.scenario import Scenario, build_scenario, labels_of
from imbcil.protocols.settings import DataSettings, ProtocolSettings
from imbcil.protocols.splits import column_name, parse_split, phase_sizes

CODES = np.array(
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, DIFFICULT, 1, 0], [CROWD, 0, 0, 1]], np.uint8
)


def arranged(codes: np.ndarray = CODES, **settings: Any) -> Arrangement:
    """Four classes in two phases, the same images for training and test."""
    given = {"protocol": "mlcil", "dataset": "mine", "step": 2, "order": "ordered", **settings}
    nothing = np.full(len(codes), -1)
    labels = DatasetLabels(nothing, nothing, ("a", "b", "c", "d"), codes, codes)
    return arrange_multi(ProtocolSettings(**given), None, labels)


def test_a_phase_holds_every_image_with_one_of_its_classes_and_shared_images_come_back() -> None:
    first, second = arranged().phases
    assert first.train.tolist() == [0, 1, 2, 5]  # a crowd counts, a difficult object does not
    assert second.train.tolist() == [2, 3, 4, 5]
    assert (first.test.tolist(), second.test.tolist()) == (first.train.tolist(), second.train.tolist())
    assert [len(rows) for rows in arranged().kept] == [3, 2, 2, 2]


@pytest.mark.parametrize(
    ("switches", "difficult", "crowd"),
    [
        ({}, 0, 1),
        ({"difficult": "negative", "crowd": "include"}, 0, 1),
        ({"difficult": "ignore"}, IGNORED, 1),
        ({"difficult": "positive", "crowd": "exclude"}, 1, 0),
    ],
)
def test_switches_say_what_difficult_objects_and_crowds_count_as(
    switches: dict[str, str], difficult: int, crowd: int
) -> None:
    made = arranged(data=DataSettings(**switches))
    assert made.targets is not None
    for targets in (made.targets.train, made.targets.test):
        assert (targets[4, 1], targets[5, 0]) == (difficult, crowd)
        assert np.array_equal(targets[:4], CODES[:4])
    assert (4 in made.phases[0].train) == (difficult == 1)
    assert (5 in made.phases[0].train) == (crowd == 1)


def test_an_image_is_held_out_of_every_phase_or_of_none_and_no_class_loses_its_last() -> None:
    codes = np.vstack([np.repeat(CODES[:4], 25, axis=0), [[0, 0, 0, 1], [1, 0, 0, 0]]])
    codes[:75, 3] = 0  # the class d keeps the 25 images of one kind and one more
    made = arranged(codes, data=DataSettings(holdout=0.5))
    first, second = made.phases
    held = set(first.holdout) | set(second.holdout)
    assert len(held) == 51
    for phase in made.phases:
        assert sorted([*phase.train, *phase.holdout]) == phase.train_before_holdout.tolist()
        assert not held & set(phase.train)
    rare = arranged(CODES[:4], data=DataSettings(holdout=0.9))
    left = set(rare.phases[0].train) | set(rare.phases[1].train)
    assert all(left & set(np.flatnonzero(CODES[:4, label])) for label in range(4))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"imbalance": "exp"}, "several labels an image"),
        ({"dataset": "mine-lt"}, "several labels an image"),
        ({"step": 5}, "step = 5"),
    ],
)
def test_what_several_labels_cannot_have_is_refused(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(BadInput, match=part):
        arranged(**settings)


def test_a_phase_without_a_training_image_is_refused_by_the_names_of_its_classes() -> None:
    codes = CODES.copy()
    codes[:, 3] = 0
    with pytest.raises(BadInput, match=r"phase 3 of mine \(d\) has no training image"):
        arranged(codes, step=1)


def test_base_and_step_have_a_short_form_and_a_name_in_tables() -> None:
    assert (parse_split("B10-C2"), parse_split("b0c4")) == ((10, 2), (0, 4))
    for text in ("B10", "C2", "B1-C0", "10-2", "B-C", ""):
        with pytest.raises(BadInput, match=f"split = {text}: write B10-C2"):
            parse_split(text)
    for base, step, sizes, name in (
        (10, 2, (10, 2, 2, 2, 2, 2), "mlcil-B10-C2"),
        (0, 4, (4,) * 5, "mlcil-B0-C4"),
        (4, 4, (4,) * 5, "mlcil-B0-C4"),
        (15, 1, (15, 1, 1, 1, 1, 1), "mlcil-B15-C1"),
        (10, 4, (10, 4, 4, 2), "mlcil-sizes-10-2x4-2"),
        (20, None, (20,), "mlcil-B0-C20"),
    ):
        settings = ProtocolSettings(protocol="mlcil", dataset="voc2007", base=base, step=step)
        assert phase_sizes(settings, 20) == sizes
        assert column_name(settings, sizes) == name


@pytest.fixture
def glyphs() -> Callable[..., Scenario]:
    def do(**settings: Any) -> Scenario:
        given = {"protocol": "mlcil", "dataset": "glyphs20-ml", "base": 10, "step": 2, "order": "ordered"}
        return build_scenario(ProtocolSettings(**{**given, **settings}), say=lambda line: None)

    return do


def test_embedded_images_of_several_labels_fit_their_phases(glyphs: Callable[..., Scenario]) -> None:
    built = glyphs()
    assert (built.label_kind, built.column, built.dataset) == ("multi", "mlcil-B10-C2", "glyphs20-ml")
    images = built.images
    assert images is not None and images.train_targets is not None and images.test_targets is not None
    assert (images.train.shape, images.test.shape) == ((2400, 64, 64, 3), (1000, 64, 64, 3))
    assert set(images.train_labels) == set(images.test_labels) == {-1}
    for phase in built.phases:
        for rows, targets in ((phase.train, images.train_targets), (phase.test, images.test_targets)):
            has = (targets[:, list(phase.classes)] == 1).any(axis=1)
            assert np.array_equal(rows, np.flatnonzero(has))
    assert built.raw_counts.tolist() == images.train_targets.sum(axis=0).tolist()
    record = scenario_record(built)
    assert (record["difficult"], record["crowd"]) == ("negative", "include")
    assert record["train_images"] == 2400 and record["test_seen"][-1] == 1000
    assert "difficult negative, crowd include" in scenario_lines(built)[0]


def test_switches_split_order_and_holdout_change_the_digest(glyphs: Callable[..., Scenario]) -> None:
    different = [
        glyphs(),
        glyphs(data=DataSettings(difficult="ignore")),
        glyphs(data=DataSettings(crowd="exclude")),
        glyphs(data=DataSettings(holdout=0.1)),
        glyphs(base=0),
        glyphs(order="random:1"),
    ]
    assert len({built.digest for built in different}) == len(different)
    assert glyphs(data=DataSettings(difficult="negative", crowd="include")).digest == different[0].digest


def test_a_family_of_orders_depends_on_the_switches_and_not_on_the_order(
    glyphs: Callable[..., Scenario],
) -> None:
    varied = {"order": "shuffled", "vary": ("order",)}
    families = {glyphs(**varied, seed=seed).family for seed in (0, 1)}
    assert len(families) == 1
    assert glyphs(**varied, data=DataSettings(difficult="ignore")).family not in families


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (
            {"protocol": "lfs", "base": None, "step": None},
            "lfs is not made for glyphs20-ml.*--protocol mlcil",
        ),
        ({"dataset": "glyphs100"}, "mlcil is not made for glyphs100.*--protocol lfs"),
        (
            {"dataset": "glyphs100", "protocol": "lfs", "data": DataSettings(crowd="exclude")},
            "data.crowd has no meaning for glyphs100",
        ),
    ],
)
def test_another_kind_of_labels_is_refused(
    settings: dict[str, Any], part: str, glyphs: Callable[..., Scenario]
) -> None:
    with pytest.raises(BadInput, match=part):
        glyphs(**settings)


def test_one_phase_takes_one_label_or_several(glyphs: Callable[..., Scenario]) -> None:
    built = glyphs(protocol="static", base=None, step=None)
    assert (built.label_kind, len(built.phases), len(built.phases[0].train)) == ("multi", 1, 2400)
    assert labels_of("static", "glyphs20-ml") == "multi"
    assert labels_of("static", "glyphs100-lt") == "single"
    assert labels_of("lfs", "voc2007") == "single"  # the protocol decides where it can


def test_unset_switches_leave_no_trace_in_the_settings_of_a_run() -> None:
    assert "difficult" not in DataSettings().model_dump() and "crowd" not in DataSettings().model_dump()
    assert ProtocolSettings(
        protocol="lfs", dataset="a", data=DataSettings(crowd="exclude")
    ).model_dump(mode="json")["data"]["crowd"] == "exclude"  # fmt: skip


def test_objects_are_long_tailed_in_company_and_the_same_everywhere() -> None:
    objects = draw_objects("train", 2400)
    counts = glyphs_multi.label_matrix(objects).sum(axis=0, dtype=np.int64)
    assert 40 < counts.max() / counts.min() < 100
    assert ((counts >= 100).sum(), (counts < 20).sum()) == (9, 3)
    assert set((objects >= 0).sum(axis=1)) == {1, 2, 3, 4}
    common = glyphs_multi.RANKS.index(0)
    labels = glyphs_multi.label_matrix(objects).astype(bool)
    others = labels.copy()
    others[:, common] = False
    shared = labels[:, common] & others.any(axis=1)
    assert shared.sum() > 0.5 * (labels.sum(axis=1) > 1).sum()  # in VOC it is three of four
    assert np.array_equal(draw_objects("train", 100), objects[:100])


def test_a_block_renders_alone_as_it_does_among_others(glyphs: Callable[..., Scenario]) -> None:
    images = glyphs().images
    assert images is not None
    objects = draw_objects("test", 1000)
    assert np.array_equal(images.test[300:400], render_block("test", 3, objects[300:400], 64))
