"""Digest and family: two scenarios compare only if everything that a learner meets is the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_data import small_arrays

from imbcil.harness.base.errors import BadInput, MissingData, UnknownName
from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario, build_scenario
from imbcil.protocols.settings import DataSettings, ProtocolSettings

ScenarioOf = Callable[..., Scenario]

CHANGES = {
    "split": {"n_tasks": 2},
    "unequal split": {"n_tasks": None, "sizes": (3, 2, 1)},
    "order": {"order": "random:3"},
    "profile": {"dataset": "small-lt"},
    "rho": {"dataset": "small-lt", "rho": 10.0},
    "step": {"imbalance": "step"},
    "sampled images": {"dataset": "small-lt", "data": DataSettings(sampling_seed=1)},
    "hold-out": {"data": DataSettings(holdout=0.1)},
    "another hold-out": {"data": DataSettings(holdout=0.2)},
    "quirk switch": {"data": DataSettings(holdout_quirk=True)},
    "size that is seen": {"data": DataSettings(size=6, resize=8)},
    "size that is stored": {"data": DataSettings(size=6)},
}


def test_a_digest_changes_with_everything_that_a_learner_meets(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    digests = {name: scenario_of(**settings).digest for name, settings in {"plain": {}, **CHANGES}.items()}
    assert len(set(digests.values())) == len(digests), digests


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_pixel_more_or_less_changes_the_digest(
    split: str, import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    before = scenario_of().digest
    images = small_arrays()[f"x_{split}"].copy()
    images[3, 2, 1, 0] ^= 1
    import_small(**{f"x_{split}": images})
    assert scenario_of().digest != before


def test_two_swapped_labels_change_the_digest(import_small: Callable, scenario_of: ScenarioOf) -> None:
    import_small()
    before = scenario_of().digest
    labels = small_arrays()["y_train"].copy()
    first, second = 0, int(np.flatnonzero(labels != labels[0])[0])
    labels[[first, second]] = labels[[second, first]]
    import_small(y_train=labels)
    assert scenario_of().digest != before


def test_a_digest_is_the_same_for_the_same_data_in_another_file_and_under_another_name(
    import_small: Callable, scenario_of: ScenarioOf, tmp_path: Path, root: Path
) -> None:
    import_small()
    path = tmp_path / "again.npz"
    np.savez_compressed(path, **small_arrays())
    import_dataset("other", path, "auto", root, lambda line: None)
    assert scenario_of(dataset="other").digest == scenario_of().digest


def test_the_runs_seed_changes_nothing_unless_it_varies_the_data(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    assert scenario_of(seed=0).digest == scenario_of(seed=7).digest
    assert scenario_of().family == scenario_of().digest


def test_a_family_holds_the_varied_axis_and_nothing_else(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    for axis in ("order", "sample"):
        settings = {
            "dataset": "small-lt",
            "order": "shuffled",
            "vary": (axis,),
            "data": DataSettings(holdout=0.1),
        }
        seeds = [scenario_of(**settings, seed=seed) for seed in (0, 1, 2)]
        assert len({one.digest for one in seeds}) == 3, axis
        assert len({one.family for one in seeds}) == 1, axis
        elsewhere = [
            scenario_of(**{**settings, **change}).family
            for change in ({"n_tasks": 2}, {"rho": 10.0}, {"data": DataSettings()}, {"vary": ("model",)})
        ]
        assert len({seeds[0].family, *elsewhere}) == 5, axis


def test_families_of_one_order_and_of_another_differ_when_only_the_sample_varies(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    settings = {"dataset": "small-lt", "vary": ("sample",)}
    assert scenario_of(**settings, order="ordered").family != scenario_of(**settings, order="random:1").family


def test_seed_0_of_a_varied_run_is_the_published_scenario(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    settings = {"dataset": "small-lt", "order": "shuffled"}
    assert scenario_of(**settings, vary=("order", "sample"), seed=0).digest == scenario_of(**settings).digest


def test_phases_are_contiguous_in_arrival_ids_and_cover_every_row_once(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    built = scenario_of(order="random:2", sizes=(1, 3, 2), n_tasks=None, data=DataSettings(holdout=0.25))
    assert built.images is not None
    assert [(phase.lo, phase.hi) for phase in built.phases] == [(0, 1), (1, 4), (4, 6)]
    assert [built.arrival_id[label] for label in built.order] == list(range(6))
    for phase in built.phases:
        assert set(built.images.train_labels[phase.train]) == set(phase.classes)
        assert set(built.images.test_labels[phase.test]) == set(phase.classes)
        assert sorted([*phase.train, *phase.holdout]) == sorted(phase.train_before_holdout)
    assert sorted(np.concatenate([phase.train_before_holdout for phase in built.phases])) == list(range(240))
    assert built.raw_counts.tolist() == [40] * 6
    assert built.class_names == tuple(str(label) for label in built.order)


def test_images_of_a_scenario_are_those_that_were_imported(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    images = scenario_of().images
    assert images is not None
    arrays = small_arrays()
    assert np.array_equal(images.train, arrays["x_train"])
    assert np.array_equal(images.test, arrays["x_test"])
    assert images.mean == pytest.approx(arrays["x_train"].mean(axis=(0, 1, 2)) / 255, abs=1e-4)
    assert images.std == pytest.approx(arrays["x_train"].std(axis=(0, 1, 2)) / 255, abs=1e-4)
    with pytest.raises(ValueError, match="read-only"):
        images.train[0] = 0


def test_missing_images_say_what_is_wanted_and_sizes_need_none(root: Path) -> None:
    asked = ProtocolSettings(protocol="lfs", dataset="cifar100-lt")
    with pytest.raises(MissingData, match=r"data download cifar100.*cifar-100-python.tar.gz"):
        build_scenario(asked, data_root=root)
    built = build_scenario(asked, data_root=root, need_images=False)
    assert (built.digest, built.family, built.images) == (None, None, None)
    assert built.raw_counts.sum() == 10_847
    assert not root.exists()


@pytest.mark.parametrize(
    ("settings", "error", "part"),
    [
        ({"dataset": "cifar10O-lt"}, UnknownName, "did you mean cifar10"),
        ({"dataset": "../../etc"}, UnknownName, "no dataset called"),
        ({"dataset": "small-lt", "imbalance": "none"}, BadInput, "contradicts"),
        ({"rho": 10.0}, BadInput, "rho = 10"),
        ({"dataset": "small-lt", "rho": 0.5}, BadInput, "rho = 0.5"),
        ({"data": DataSettings(size=9, resize=8)}, BadInput, "data.size = 9"),
        ({"vary": ("order",), "seed": 1}, BadInput, "can vary"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    settings: dict, error: type, part: str, import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    with pytest.raises(error, match=part):
        scenario_of(**settings)


def test_a_family_holds_where_the_order_decides_which_images_are_kept(
    import_small: Callable, scenario_of: ScenarioOf
) -> None:
    import_small()
    for imbalance in ("few-shot", "none"):
        settings = {"imbalance": imbalance, "order": "shuffled", "vary": ("order",)}
        seeds = [scenario_of(**settings, seed=seed) for seed in (0, 1, 2)]
        assert len({one.family for one in seeds}) == 1, imbalance


def test_two_classes_swapped_inside_a_phase_change_the_digest(
    import_small: Callable, scenario_of: ScenarioOf, tmp_path: Path
) -> None:
    import_small()
    (tmp_path / "order.txt").write_text("1\n0\n2\n3\n4\n5\n")
    assert scenario_of(order=str(tmp_path / "order.txt")).digest != scenario_of(order="ordered").digest
