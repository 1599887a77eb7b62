"""`plot predictions`: what stands below an image, which images they are, and that they are the run's own."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import add_run, make_store
from tiny import MULTI_TEST, tiny_multi_scenario, tiny_runner

from imbcil.harness.base.errors import BadInput
from imbcil.harness.figures.predictions import (
    LATER,
    MISSED,
    RIGHT,
    WRONG,
    Judged,
    lines_of,
    prediction_figure,
)
from imbcil.harness.phases import arrival_targets
from imbcil.harness.request import RunRequest
from imbcil.harness.store.layout import Store
from imbcil.reports import predictions
from imbcil.reports.predictions import drawn_images, multi_label_run, plot_predictions

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")


def judged(probabilities: list[float], truth: list[int]) -> Judged:
    image = np.zeros((8, 8, 3), np.uint8)
    return Judged(7, image, np.array(probabilities), np.array(truth, dtype=np.uint8))


def test_right_wrong_missed_ignored_and_later_labels_have_signs_of_their_own() -> None:
    image = judged([0.9, 0.6, 0.2, 0.95], [1, 0, 1, 255, 0, 1])
    assert lines_of(image, NAMES, 0.5) == [
        ("+ ant 0.90", RIGHT), ("x bee 0.60", WRONG), ("- cat 0.20", MISSED), ("? dog 0.95", LATER), ("... fox", LATER),
    ]  # fmt: skip
    assert [text for text, _ in lines_of(image, NAMES, 0.8)] == [
        "+ ant 0.90",
        "- cat 0.20",
        "? dog 0.95",
        "... fox",
    ]


def test_many_wrong_labels_are_counted_the_surest_are_named() -> None:
    image = judged([0.6, 0.7, 0.8, 0.9, 0.95, 0.99], [0] * 6)
    texts = [text for text, _ in lines_of(image, NAMES, 0.5)]
    assert texts == ["x fox 0.99", "x elk 0.95", "x dog 0.90", "x cat 0.80", "x 2 more"]


def test_every_image_is_drawn_with_its_row_and_its_lines() -> None:
    images = [judged([0.9], [1, 0]), judged([0.1], [0, 1])]
    figure = prediction_figure(images, NAMES, 0.5, "title")
    first, second, third = figure.axes
    assert first.get_title(loc="left") == "test image 7"
    assert [text.get_text() for text in second.texts] == ["... bee"]
    assert not third.axison


def test_images_are_drawn_from_those_with_a_label_alike_for_every_run() -> None:
    truth = np.zeros((40, 2), np.uint8)
    truth[::2, 0], truth[1, 1] = 1, 255
    drawn = drawn_images(truth, "a", 6)
    assert drawn.tolist() == drawn_images(truth, "a", 6).tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == 6 and (drawn % 2 == 0).all()
    assert drawn.tolist() != drawn_images(truth, "b", 6).tolist()
    assert len(drawn_images(truth, "a", 100)) == 20


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, str, RunRequest]:
    runner = tiny_runner("replay", tmp_path / "store", scenario=tiny_multi_scenario())
    runner.run()
    monkeypatch.setattr(predictions, "build_scenario", lambda settings, data_root: tiny_multi_scenario())
    request = RunRequest(protocol="mlcil", dataset="tiny-ml", sizes=(3, 1, 2), method=("replay",))
    return Store(tmp_path / "store"), runner.s.info.run_key, request


def test_scores_and_truth_of_the_same_test_image_stand_together(
    run: tuple[Store, str, RunRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key, request = run
    folder = multi_label_run(store, key)
    shown: list[Judged] = []

    def keep(images: list[Judged], *rest: object) -> object:
        shown.extend(images)
        return prediction_figure(images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(predictions, "prediction_figure", keep)
    (said,) = plot_predictions(folder, request, 1, 3, 0.5, tmp_path / "a.png")
    assert said.startswith(f"replay: run {key}, test images ") and (tmp_path / "a.png").stat().st_size > 3000
    scenario = tiny_multi_scenario()
    assert scenario.images is not None
    truth, stored = arrival_targets(scenario, "test"), folder.load_scores(1)
    assert len(shown) == 3 and len(truth) == len(MULTI_TEST)
    for one in shown:
        place = stored["test_rows"].tolist().index(one.row)
        assert np.log(one.probabilities / (1 - one.probabilities)) == pytest.approx(
            stored["test/fc"][place], abs=1e-5
        )
        assert one.truth.tolist() == truth[one.row].tolist()
        assert np.array_equal(one.image, scenario.images.test[one.row])


def test_other_images_another_phase_and_one_label_are_refused(
    run: tuple[Store, str, RunRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key, request = run
    folder = multi_label_run(store, key)
    with pytest.raises(BadInput, match=r"--phase 3: 3 phases of run .* are finished; they count from 0"):
        plot_predictions(folder, request, 3, 6, 0.5, tmp_path / "a.png")
    monkeypatch.setattr(folder, "info", lambda: run_info_with(folder, digest="0" * 64))
    with pytest.raises(BadInput, match=r"at hand are not those of run .* \(digest 00000000\)"):
        plot_predictions(folder, request, None, 6, 0.5, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    for wrong in ("nothing", "../runs", ""):
        with pytest.raises(BadInput, match="There is no run"):
            multi_label_run(store, wrong)
    single = add_run(make_store(tmp_path / "single"), "icarl").path.name
    with pytest.raises(BadInput, match="have one label each; this figure is for several"):
        multi_label_run(Store(tmp_path / "single"), single)


def run_info_with(folder: object, **fields: object) -> object:
    return type(folder).info(folder).model_copy(update=fields)  # type: ignore[attr-defined]
