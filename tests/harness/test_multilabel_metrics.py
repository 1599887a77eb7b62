"""Multi-label metrics: the hand case, brute force, torchmetrics where definitions agree, and where they do not."""

import numpy as np
import pytest
import torch

from imbcil.harness.metrics import final_metrics
from imbcil.harness.multilabel_metrics import (
    average_precision,
    count_groups,
    f1_metrics,
    multilabel_phase_metrics,
)

# the worked case: five images, three classes
HAND = np.array([[0.9, 0.2, 0.7], [0.85, 0.6, 0.1], [0.3, 0.95, 0.82], [0.1, 0.4, 0.81], [0.6, 0.05, 0.3]])
HAND_TARGETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.uint8)


def logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities)).astype(np.float32)


def metrics(scores: np.ndarray, targets: np.ndarray, phases: list[int] | None = None, counts: list[int] | None = None,
            history: list[list[float]] | None = None) -> dict[str, float]:  # fmt: skip
    n_classes = targets.shape[1]
    arrived = np.array(phases or [0] * n_classes)
    past = np.array(history) if history else np.empty((0, n_classes))
    return multilabel_phase_metrics(
        {"fc": scores}, targets, arrived, np.array(counts or [50] * n_classes), past
    )


def random_case(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(images, classes)).astype(np.float32)
    targets = (generator.random((images, classes)) < 0.2).astype(np.uint8)
    targets[0] = 1
    return scores, targets


def test_the_hand_case_to_six_digits():
    found = metrics(logits(HAND), HAND_TARGETS)
    assert average_precision(logits(HAND), HAND_TARGETS) == pytest.approx([0.805556, 1.0, 0.583333], abs=5e-7)
    expected = {
        "map": 79.629630, "cf1_mean_t0.5": 82.222222, "cf1_harmonic_t0.5": 82.962963, "of1_t0.5": 80.0,
        "cf1_mean_t0.8": 52.222222, "cf1_harmonic_t0.8": 53.333333, "of1_t0.8": 50.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[f"phase/{name}"] == pytest.approx(value, abs=5e-7), name


def test_average_precision_is_the_mean_precision_at_the_ranks_of_positives():
    scores, targets = random_case(60, 4)
    for column, found in enumerate(average_precision(scores, targets)):
        order = sorted(range(60), key=lambda row: -scores[row, column])
        hits, total = 0, 0.0
        for rank, row in enumerate(order, start=1):
            if targets[row, column]:
                hits += 1
                total += hits / rank
        assert found == pytest.approx(total / hits, rel=1e-12)


def test_ties_keep_the_order_of_the_rows():
    tied = np.zeros((4, 2), dtype=np.float32)
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], dtype=np.uint8)
    assert average_precision(tied, targets).tolist() == [1.0, 0.25]


def test_ignored_cells_take_no_rank_and_are_no_prediction():
    scores = np.array([[3.0], [2.0], [1.0]], dtype=np.float32)
    targets = np.array([[255], [1], [0]], dtype=np.uint8)
    assert average_precision(scores, targets).tolist() == [1.0]
    assert f1_metrics(scores, targets, 0.5)["of1"] == pytest.approx(100 * 2 / 3)


def test_ignored_cells_take_no_rank_beside_scores_of_minus_infinity():
    scores = np.array([[-np.inf], [0.0], [-np.inf]], dtype=np.float32)
    targets = np.array([[255], [0], [1]], dtype=np.uint8)
    assert average_precision(scores, targets).tolist() == [0.5]


def test_a_class_without_positives_is_left_out_and_counted():
    scores, targets = random_case(40, 4)
    targets[:, 2] = 0
    found, without = metrics(scores, targets), metrics(scores[:, [0, 1, 3]], targets[:, [0, 1, 3]])
    assert found["phase/classes_without_positives"] == 1
    for name in ("map", "cf1_mean_t0.5", "cf1_harmonic_t0.5"):
        assert found[f"phase/{name}"] == pytest.approx(without[f"phase/{name}"])
    assert found["phase/map_legacy"] == pytest.approx(found["phase/map"] * 3 / 4)
    assert found["phase/of1_t0.5"] < without["phase/of1_t0.5"]  # its false positives count


def test_chance_is_worth_the_mean_share_of_positives():
    assert metrics(logits(HAND), HAND_TARGETS)["phase/map_chance"] == pytest.approx(100 * (3 + 2 + 2) / 15)
    targets = (np.random.default_rng(1).random((20_000, 3)) < [0.3, 0.1, 0.02]).astype(np.uint8)
    found = metrics(np.random.default_rng(2).normal(size=targets.shape).astype(np.float32), targets)
    assert found["phase/map_chance"] == pytest.approx(found["phase/map"], rel=0.05)  # AP of scores by chance
    targets[:, 2] = 0  # without a positive it is in neither mean
    both = metrics(np.zeros(targets.shape, np.float32), targets)["phase/map_chance"]
    seen = targets[targets.any(axis=1)]
    assert both == pytest.approx(100 * seen[:, :2].mean())


def test_no_prediction_at_all_is_zero_and_not_undefined():
    found = metrics(np.full((5, 3), -9, dtype=np.float32), HAND_TARGETS)
    assert found["phase/of1_t0.8"] == found["phase/cf1_mean_t0.8"] == found["phase/cf1_harmonic_t0.8"] == 0


def test_the_threshold_is_exceeded_strictly():
    at_half = np.zeros((2, 1), dtype=np.float32)  # sigmoid exactly 0.5
    assert f1_metrics(at_half, np.ones((2, 1), dtype=np.uint8), 0.5)["of1"] == 0


def test_images_without_a_seen_class_enter_only_their_false_positive_rate():
    scores, targets = logits(HAND), HAND_TARGETS
    more = np.concatenate([scores, [[9, -9, -9], [-9, -9, -9]]]).astype(np.float32)
    wider = np.concatenate([targets, np.zeros((2, 3), dtype=np.uint8)])
    found, before = metrics(more, wider), metrics(scores, targets)
    assert found.pop("phase/fpr_no_seen_class_t0.8") == pytest.approx(100 / 6)
    assert found.pop("phase/fpr_no_seen_class_t0.5") == pytest.approx(100 / 6)
    assert found == pytest.approx(before)


def test_base_and_new_views_have_their_own_images_and_columns():
    scores, targets = logits(HAND), HAND_TARGETS
    found = metrics(scores, targets, phases=[0, 0, 1])
    base, new = targets[:, :2].any(axis=1), targets[:, 2] == 1
    assert not base.all()
    expected = 100 * average_precision(scores[base][:, :2], targets[base][:, :2]).mean()
    assert found["phase/map_base"] == pytest.approx(expected)
    assert found["phase/map_new"] == pytest.approx(
        100 * average_precision(scores[new][:, 2:], targets[new][:, 2:])[0]
    )


def test_head_medium_and_tail_go_by_the_training_positives():
    assert count_groups(np.array([100, 99, 20, 19])) == ("head", "medium", "medium", "tail")
    found = metrics(logits(HAND), HAND_TARGETS, counts=[100, 20, 19])
    aps = 100 * average_precision(logits(HAND), HAND_TARGETS)
    assert [found[f"phase/map_{name}"] for name in ("head", "medium", "tail")] == pytest.approx(aps.tolist())


def test_forgetting_is_the_best_earlier_ap_minus_the_present_one():
    nan = float("nan")
    history = [[90.0, nan, nan], [85.0, 100.0, nan]]
    found = metrics(logits(HAND), HAND_TARGETS, phases=[0, 1, 2], counts=[200, 10, 50], history=history)
    lost = [90 - 80.555556, 0.0]
    assert found["phase/forgetting"] == pytest.approx(np.mean(lost), abs=1e-5)
    assert found["phase/forgetting_head"] == pytest.approx(lost[0], abs=1e-5)
    assert found["phase/forgetting_tail"] == 0


def test_the_average_has_the_base_task_in_it():
    final = final_metrics([{"phase/map": 90.0}, {"phase/map": 60.0}, {"phase/map": 30.0}])
    assert (final["final/avg_map"], final["final/last_map"]) == (60.0, 30.0)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="scores must be"):
        metrics(logits(HAND)[:, :2], HAND_TARGETS)


def test_torchmetrics_agrees_where_the_definitions_do():
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    scores, targets = random_case(300, 7)
    p, y = torch.from_numpy(scores).double().sigmoid(), torch.from_numpy(targets).long()
    expected = oracle.multilabel_average_precision(p, y, 7, average="none").numpy()
    assert average_precision(scores, targets) == pytest.approx(expected, abs=1e-6)
    for threshold in (0.5, 0.8):
        found = f1_metrics(scores, targets, threshold)
        macro = oracle.multilabel_f1_score(p, y, 7, threshold=threshold, average="macro")
        micro = oracle.multilabel_f1_score(p, y, 7, threshold=threshold, average="micro")
        assert found["cf1_mean"] == pytest.approx(100 * float(macro), abs=1e-4)
        assert found["of1"] == pytest.approx(100 * float(micro), abs=1e-4)


def test_torchmetrics_differs_in_ties_and_in_f1_of_classes_without_positives():
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    tied, targets = np.zeros((4, 1), dtype=np.float32), np.array([[1], [0], [0], [0]], dtype=np.uint8)
    theirs = oracle.binary_average_precision(torch.full((4,), 0.5), torch.from_numpy(targets[:, 0]).long())
    assert average_precision(tied, targets)[0] == 1.0
    assert float(theirs) == 0.25  # one threshold for all ties
    scores, targets = random_case(50, 3)
    targets[:, 1] = 0
    macro = oracle.multilabel_f1_score(
        torch.from_numpy(scores).sigmoid(), torch.from_numpy(targets).long(), 3, average="macro"
    )
    assert f1_metrics(scores, targets, 0.5)["cf1_mean"] == pytest.approx(100 * float(macro) * 3 / 2, abs=1e-3)
