"""What a multi-label run leaves in its folder: scores with targets, AP per class, its matrix, and silent classes named."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MULTI_ORDER, tiny_multi_scenario, tiny_runner

from imbcil.harness.multilabel_metrics import per_class_ap
from imbcil.harness.phases import arrival_targets
from imbcil.harness.tracking.describe import _COLUMNS


def finished(store: Path, without: int | None = None) -> Any:
    """A run; `without`: an arrival id whose positives are struck out of the test images."""
    scenario = tiny_multi_scenario()
    if without is not None:
        assert scenario.images is not None
        assert scenario.images.test_targets is not None
        scenario.images.test_targets[:, MULTI_ORDER[without]] = 0
    runner = tiny_runner("replay", store, scenario=scenario)
    said: list[str] = []
    runner.s.view.message = said.append  # type: ignore[method-assign]
    runner.run()
    return runner, said


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_scores_of_all_test_images_are_kept_with_their_targets(tmp_path: Path):
    runner, _ = finished(tmp_path)
    truth = arrival_targets(runner.s.scenario, "test")
    for phase, hi in enumerate((3, 4, 6)):
        stored = runner.s.folder.load_scores(phase)
        assert stored["test_rows"].tolist() == list(range(len(truth)))
        assert np.array_equal(stored["test_targets"], truth[:, :hi])
        assert stored["test/fc"].shape == (len(truth), hi)


def test_per_class_ap_and_the_matrix_of_means_are_written(tmp_path: Path):
    runner, _ = finished(tmp_path)
    stored = runner.s.folder.load_scores(2)
    expected = per_class_ap(stored["test/fc"], stored["test_targets"])
    rows = [row for row in rows_of(runner.s.folder.path / "per_class.csv") if row["phase"] == "2"]
    assert [float(row["ap"]) for row in rows] == pytest.approx(expected.tolist())
    assert {row["group"] for row in rows} == {"tail"}
    last = rows_of(runner.s.folder.path / "accuracy_matrix.csv")[-1]
    means = [expected[:3].mean(), expected[3], expected[4:].mean()]
    assert [float(last[f"task_{task}"]) for task in range(3)] == pytest.approx(means)


def test_forgetting_goes_by_the_stored_scores_of_earlier_phases(tmp_path: Path):
    runner, _ = finished(tmp_path)
    aps = []
    for phase in range(3):
        stored = runner.s.folder.load_scores(phase)
        aps.append(np.pad(per_class_ap(stored["test/fc"], stored["test_targets"]), (0, (3, 2, 0)[phase]))[:4])
    best = np.maximum(aps[0], aps[1])
    expected = (best - aps[2]).mean()
    assert runner.s.folder.records()[-1].metrics["phase/forgetting"] == pytest.approx(expected)


def test_a_class_without_a_positive_test_image_is_named(tmp_path: Path):
    runner, said = finished(tmp_path, without=3)
    assert [line for line in said if "no positive test image" in line] == [
        f"phase {phase} of 3: no positive test image of class {MULTI_ORDER[3]}; left out of means over classes"
        for phase in (2, 3)
    ]
    assert runner.s.folder.records()[-1].metrics["phase/classes_without_positives"] == 1
    row = next(row for row in rows_of(runner.s.folder.path / "per_class.csv") if row["class_id"] == "3")
    assert row["ap"] == ""


def test_the_dashboards_table_has_the_multi_label_columns():
    titles = [title for title, _ in _COLUMNS]
    assert {"mAP", "CF1 at 0.8", "OF1 at 0.8", "tail"} <= set(titles)
    assert len(titles) == len(set(titles))
