"""Metrics against a re-derivation in plain Python, one image at a time, and against worked numbers."""

import math

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from imbcil.harness.metrics import (
    accuracy_matrix_row,
    final_metrics,
    per_class_accuracy,
    phase_metrics,
    predictions,
    spearman,
)
from imbcil.protocols.groups import count_groups

# phase of each class, images of its profile, test images
UNEQUAL = ([0, 0, 0, 0, 1, 2, 2], [500, 101, 100, 20, 19, 5, 150], [9, 4, 7, 1, 3, 0, 6])
GAP = ([0, 0, 1, 2, 2], [200, 30, 40, 5, 6], [5, 6, 0, 4, 3])  # nothing to test in phase 1
FIVES = (
    [p for p in range(4) for _ in range(5)],
    [500, 3, 60, 101, 12, 20, 19, 7, 130, 100, 5, 5, 44, 90, 210, 8, 18, 77, 300, 21],
    [10] * 20,
)


def plain(scores, labels, phases, counts, history):
    """Every metric again, without numpy's help: lists, loops and dictionaries."""
    hit = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        best = max(row)
        hit.append(1.0 if row.index(best) == label else 0.0)

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else None

    def over(keep):
        value = mean(h for h, label in zip(hit, labels, strict=True) if keep(label))
        return None if value is None else 100 * value

    newest = max(phases)
    by_phase = [over(lambda c, p=p: phases[c] == p) for p in range(newest + 1)]
    now = [over(lambda c, k=k: c == k) for k in range(len(phases))]
    group = ["many" if n > 100 else "few" if n < 20 else "medium" for n in counts]
    result = {
        "phase/acc_total": over(lambda c: True),
        "phase/acc_task_mean": mean(a for a in by_phase if a is not None),
        "phase/acc_new": over(lambda c: phases[c] == newest),
        "phase/acc_old": over(lambda c: phases[c] < newest),
    }
    lost = {}
    for c in range(len(phases)):
        earlier = [row[c] for row in history.tolist() if not math.isnan(row[c])]
        if phases[c] < newest and earlier and now[c] is not None:
            lost[c] = max(earlier) - now[c]
    result["phase/forgetting"] = mean(lost.values())
    tasks = [mean(v for c, v in lost.items() if phases[c] == p) for p in range(newest)]
    result["phase/forgetting_task_mean"] = mean(v for v in tasks if v is not None)
    for name in ("many", "medium", "few"):
        result[f"phase/acc_{name}"] = mean(a for c, a in enumerate(now) if a is not None and group[c] == name)
        result[f"phase/forgetting_{name}"] = mean(v for c, v in lost.items() if group[c] == name)
    if len(set(lost.values())) > 1 and len({counts[c] for c in lost}) > 1:
        result["phase/forgetting_count_corr"] = stats.spearmanr(
            list(lost.values()), [counts[c] for c in lost]
        ).statistic
    return {key: value for key, value in result.items() if value is not None}


def drawn(shape, seed, rounded=False):
    """Scores, labels and history of a made-up scenario after its newest phase."""
    phases, counts, images = shape
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(phases)), images)
    scores = rng.normal(size=(len(labels), len(phases)))
    scores[np.arange(len(labels)), labels] += rng.random(len(labels)) * 3
    scores = (np.round(scores) if rounded else scores).astype(np.float32)
    history = np.full((max(phases), len(phases)), np.nan)
    for t in range(max(phases)):
        seen = [c for c in range(len(phases)) if phases[c] <= t and images[c]]
        history[t, seen] = 100 * rng.integers(0, 11, len(seen)) / 10
    return scores, labels, np.array(phases), np.array(counts), history


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct scores", "many ties"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "shape", [UNEQUAL, FIVES, GAP], ids=["unequal phases", "phases of five", "a phase without tests"]
)
def test_every_phase_metric_agrees_with_a_plain_derivation(shape, seed, rounded):
    scores, labels, phases, counts, history = drawn(shape, seed, rounded)
    found = phase_metrics({"fc": scores}, labels, phases, counts, history)
    expected = plain(scores, labels, phases.tolist(), counts.tolist(), history)
    assert found == approx(expected, abs=1e-10)


def test_the_two_averages_differ_when_the_base_phase_is_large():
    labels = np.array([0, 1, 2, 3])
    scores = np.eye(4, dtype=np.float32)
    scores[3] = [1, 0, 0, 0]  # the only class of the second phase is taken for an old one
    found = phase_metrics(
        {"fc": scores}, labels, np.array([0, 0, 0, 1]), np.full(4, 50), np.full((1, 4), np.nan)
    )
    assert found["phase/acc_total"] == 75.0
    assert found["phase/acc_task_mean"] == 50.0


def test_the_first_of_equal_scores_wins_and_a_nan_never_does():
    scores = np.array([[2, 2, 1], [0, 3, 3], [np.nan, 1, 0]], dtype=np.float32)
    assert predictions(scores).tolist() == [0, 1, -1]


def test_the_first_phase_has_no_old_classes_and_no_forgetting():
    scores, labels, *_ = drawn(UNEQUAL, 0)
    here = labels < 4
    found = phase_metrics(
        {"fc": scores[here][:, :4]},
        labels[here],
        np.zeros(4, int),
        np.array(UNEQUAL[1][:4]),
        np.empty((0, 4)),
    )
    assert not [key for key in found if "old" in key or "forgetting" in key]
    assert found["phase/acc_new"] == found["phase/acc_total"]


def test_forgetting_is_the_best_earlier_accuracy_minus_the_one_now():
    history = np.array([[80.0, 40.0, np.nan], [60.0, 70.0, np.nan]])
    scores = np.zeros((4, 3), dtype=np.float32)
    scores[[0, 1, 2], [0, 0, 1]] = 1  # class 0 stays at 50 %, class 1 rises to 100 %
    labels, phases = np.array([0, 0, 1, 2]), np.array([0, 1, 2])
    scores[1] = [0, 1, 0]
    found = phase_metrics({"fc": scores}, labels, phases, np.array([200, 10, 5]), history)
    assert found["phase/forgetting_many"] == approx(80 - 50)
    assert found["phase/forgetting_few"] == approx(70 - 100)  # less than nothing was forgotten
    assert found["phase/forgetting"] == approx(0)
    assert found["phase/forgetting_count_corr"] == approx(1)


def test_a_correlation_with_equal_counts_is_left_out():
    scores, labels, phases, counts, history = drawn(FIVES, 1)
    found = phase_metrics({"fc": scores}, labels, phases, np.full_like(counts, 50), history)
    assert "phase/forgetting" in found
    assert "phase/forgetting_count_corr" not in found


def test_equal_losses_share_their_rank_whatever_rounding_makes_of_their_difference():
    """Seven test images a class: from 2/7 to 1/7 and from 3/7 to 2/7 is the same loss."""
    before, after = np.array([2, 3, 5]), np.array([1, 2, 2])
    labels = np.repeat(np.arange(4), 7)
    right = np.concatenate([np.arange(7) < n for n in (*after, 7)])
    scores = np.eye(4, dtype=np.float32)[np.where(right, labels, 3)]
    history = np.array([[*(100 * before / 7), np.nan]])
    found = phase_metrics({"fc": scores}, labels, np.array([0, 0, 0, 1]), np.array([10, 300, 50, 7]), history)
    assert found["phase/forgetting_count_corr"] == approx(0)  # ranks 1.5, 1.5, 3 against 1, 3, 2


def test_other_predictors_have_keys_of_their_own():
    scores, labels, phases, counts, history = drawn(FIVES, 2)
    both = phase_metrics({"nme": scores, "fc": -scores}, labels, phases, counts, history)
    alone = phase_metrics({"fc": -scores}, labels, phases, counts, history)
    assert both["phase/fc/acc_total"] == alone["phase/acc_total"]
    assert both["phase/fc/acc_task_mean"] == alone["phase/acc_task_mean"]
    assert both["phase/acc_total"] != alone["phase/acc_total"]


@pytest.mark.parametrize("images", [[0] * 7, [0, 0, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 0, 0]])
def test_nothing_undefined_is_ever_returned(images):
    scores, labels, phases, counts, history = drawn((*UNEQUAL[:2], images), 3)
    found = phase_metrics({"fc": scores, "nme": scores}, labels, phases, counts, history)
    assert all(math.isfinite(value) for value in found.values())


def test_accuracies_per_class_and_per_phase_leave_gaps_where_nothing_was_tested():
    scores, labels, phases, *_ = drawn(UNEQUAL, 4)
    accuracy = per_class_accuracy(scores, labels)
    hits = scores.argmax(axis=1) == labels
    for c in range(7):
        mine = hits[labels == c]
        assert accuracy[c] == approx(100 * mine.mean()) if mine.size else math.isnan(accuracy[c])
    row = accuracy_matrix_row(scores, labels, phases)
    assert row == approx([100 * hits[phases[labels] == p].mean() for p in range(3)])


def test_groups_follow_the_bounds_of_the_field():
    assert count_groups(np.array([101, 100, 20, 19, 0])) == ("many", "medium", "medium", "few", "few")


def test_a_group_is_the_mean_over_its_classes_however_many_test_images_each_has():
    labels = np.repeat(np.arange(3), (8, 1, 1))
    scores = np.eye(3, dtype=np.float32)[np.repeat([0, 0, 2], (8, 1, 1))]  # the second class is never found
    found = phase_metrics({"fc": scores}, labels, np.zeros(3, int), np.array([300, 200, 5]), np.empty((0, 3)))
    assert (found["phase/acc_many"], found["phase/acc_few"]) == (50.0, 100.0)  # not 8 of 9 images
    assert found["phase/acc_total"] == 90.0


def test_classes_can_be_grouped_by_the_sizes_of_another_profile_too():
    labels = np.repeat(np.arange(4), 5)
    scores = np.eye(4, dtype=np.float32)[labels]
    scores[labels == 3] = [1, 0, 0, 0]  # the last class is never found
    scores[0] = [0, 1, 0, 0]  # nor one image of the first
    counts, others = np.array([500, 300, 200, 50]), np.array([500, 60, 10, 5])
    found = phase_metrics(
        {"fc": scores}, labels, np.zeros(4, int), counts, np.empty((0, 4)), {"rho100": others}
    )
    assert {key: value for key, value in found.items() if "rho100" in key} == {
        "phase/acc_many_rho100": 80.0, "phase/acc_medium_rho100": 100.0, "phase/acc_few_rho100": 50.0,
    }  # fmt: skip
    assert found["phase/acc_many"] == approx(100 * 14 / 15)
    assert "final/last_acc_few_rho100" in final_metrics([found])


@pytest.mark.parametrize("seed", range(20))
def test_spearman_agrees_with_scipy_on_tied_values(seed):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 6, 15).astype(float), rng.integers(0, 6, 15).astype(float)
    assert spearman(left, right) == approx(stats.spearmanr(left, right).statistic, abs=1e-12)


def test_a_run_is_summed_up_by_plain_means_over_its_phases_and_its_last_values():
    records = [
        {
            "phase/acc_total": 80.0,
            "phase/acc_task_mean": 80.0,
            "phase/fc/acc_total": 70.0,
            "cost/seconds": 3.0,
        },
        {
            "phase/acc_total": 50.0,
            "phase/acc_task_mean": 40.0,
            "phase/fc/acc_total": 30.0,
            "phase/forgetting": 9.0,
        },
    ]
    assert final_metrics(records) == approx(
        {
            "final/avg_acc_total": 65,
            "final/last_acc_total": 50,
            "final/avg_acc_task_mean": 60,
            "final/last_acc_task_mean": 40,
            "final/fc/avg_acc_total": 50,
            "final/fc/last_acc_total": 30,
            "final/last_forgetting": 9,  # no average: the first phase has none
        }
    )


def test_learners_diagnostics_and_costs_are_no_final_metrics():
    assert final_metrics([{"phase/sigma": 0.3, "cost/seconds": 2.0, "phase/acc_total": 1.0}]).keys() == {
        "final/avg_acc_total",
        "final/last_acc_total",
    }
    assert final_metrics([]) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": {}}, "scores"),
        ({"labels": np.array([0, 1])}, "scores"),
        ({"counts": np.array([1])}, "counts"),
        ({"history": np.empty((0, 2))}, "history"),
        ({"labels": np.full(30, 7)}, "labels"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, said):
    scores, labels, phases, counts, history = drawn(UNEQUAL, 5)
    given = {
        "scores": {"fc": scores},
        "labels": labels,
        "phase_of_class": phases,
        "counts": counts,
        "history": history,
    }
    with pytest.raises(ValueError, match=said):
        phase_metrics(**{**given, **change})
