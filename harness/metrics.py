"""Numbers of one phase and of a whole run, from stored scores alone: numpy in, floats out, float64 inside.

Names and definitions: accuracies in percent; a class is *many*, *medium* or *few* by the images of its raw
profile (before any hold-out): more than 100, 20 to 100, fewer than 20; a group's accuracy is the mean over its
classes (Kang et al. 2020), however many test images each has. `acc_total` weighs test images equally,
`acc_task_mean` weighs phases equally (the convention of FACIL and LT-CIL). What is undefined is left out:
no value is ever NaN or infinite. Nothing here knows a learner.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from imbcil.protocols.groups import GROUPS, count_groups

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What a run's summary keeps of a phase; learners' own diagnostics stay per phase.
SUMMARISED = ("acc_", "forgetting", "map", "cf1_", "of1_")


def phase_metrics(
    scores: Mapping[str, NDArray[np.float32]],
    labels: Ints,
    phase_of_class: Ints,
    counts: Ints,
    history: Floats,
    regrouped: Mapping[str, Ints] | None = None,
) -> dict[str, float]:
    """All `phase/*` metrics after the newest phase.

    scores: predictor -> [N, K], the first is primary; labels [N] in 0..K-1 (arrival ids); phase_of_class [K],
    the phase in which each class arrived; counts [K], training images of the raw profile; history [t, K],
    per-class accuracy in percent after earlier phases, NaN where a class was unseen or had no test image.
    regrouped: other counts [K] by which classes are grouped too; `{"rho100": ...}` gives `acc_many_rho100`, ....
    Raises ValueError when shapes do not fit together.
    """
    _require_fitting(scores, labels, phase_of_class, counts, history)
    primary, *others = scores
    hits = _hits(scores[primary], labels)
    found = _accuracies(hits, labels, phase_of_class, counts)
    for name, other in (regrouped or {}).items():
        found |= {f"{key}_{name}": value for key, value in _by_group(hits, labels, other).items()}
    now = _class_means(hits, labels, len(phase_of_class))
    found |= _forgetting(now, history, phase_of_class, counts)
    for name in others:
        hits = _hits(scores[name], labels)
        found[f"{name}/acc_total"] = _percent(hits)
        found[f"{name}/acc_task_mean"] = _task_mean(hits, labels, phase_of_class)
    return {f"phase/{name}": float(value) for name, value in found.items() if np.isfinite(value)}


def final_metrics(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`final/*` of a finished run from its phases' metrics, the first phase included.

    `phase/acc_total` gives `final/avg_acc_total` (plain mean over phases) and `final/last_acc_total`; another
    predictor's `phase/fc/acc_total` gives `final/fc/avg_acc_total`. An average over phases of which one lacks
    the metric is left out, never taken over the rest.
    """
    final: dict[str, float] = {}
    for key in records[-1] if records else ():
        path, _, name = key.rpartition("/")
        if path.split("/")[0] != "phase" or not name.startswith(SUMMARISED):
            continue
        where = path.replace("phase", "final", 1)
        final[f"{where}/last_{name}"] = float(records[-1][key])
        if all(key in record for record in records):
            final[f"{where}/avg_{name}"] = float(np.mean([record[key] for record in records]))
    return {key: value for key, value in final.items() if np.isfinite(value)}


def predictions(scores: NDArray[np.float32]) -> Ints:
    """The predicted class of each row of scores [N, K]: the first of equal maxima; -1 where a score is NaN."""
    chosen = scores.argmax(axis=1).astype(np.int64) if scores.size else np.full(len(scores), -1)
    chosen[np.isnan(scores).any(axis=1)] = -1
    return chosen


def per_class_accuracy(scores: NDArray[np.float32], labels: Ints) -> Floats:
    """Accuracy in percent of each class [K] from scores [N, K] and labels [N]; NaN without a test image."""
    return _class_means(_hits(scores, labels), labels, scores.shape[1])


def accuracy_matrix_row(scores: NDArray[np.float32], labels: Ints, phase_of_class: Ints) -> Floats:
    """Accuracy in percent on the test images of each phase's classes [t + 1]; NaN without a test image."""
    return _by_phase(_hits(scores, labels), labels, phase_of_class)


def spearman(left: Floats, right: Floats) -> float:
    """Spearman's rank correlation of two arrays [n], ties sharing their mean rank; NaN if one is constant."""
    a, b = _ranks(left) - (len(left) + 1) / 2, _ranks(right) - (len(right) + 1) / 2
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _accuracies(hits: Floats, labels: Ints, phase_of_class: Ints, counts: Ints) -> dict[str, float]:
    arrived = phase_of_class[labels]
    newest = phase_of_class.max()
    return {
        "acc_total": _percent(hits),
        "acc_task_mean": _task_mean(hits, labels, phase_of_class),
        "acc_new": _percent(hits[arrived == newest]),
        "acc_old": _percent(hits[arrived < newest]),
        **_by_group(hits, labels, counts),
    }


def _by_group(hits: Floats, labels: Ints, counts: Ints) -> dict[str, float]:
    group, accuracies = np.array(count_groups(counts)), _class_means(hits, labels, len(counts))
    tested = ~np.isnan(accuracies)
    return {f"acc_{name}": _mean(accuracies[tested & (group == name)]) for name in GROUPS}


def _forgetting(now: Floats, history: Floats, phase_of_class: Ints, counts: Ints) -> dict[str, float]:
    """Best accuracy after an earlier phase minus the accuracy now, over classes of phases before the newest."""
    measured = (phase_of_class < phase_of_class.max()) & ~np.isnan(now) & ~np.isnan(history).all(axis=0)
    if not measured.any():
        return {}
    lost = np.nanmax(history[:, measured], axis=0) - now[measured]
    phases, images = phase_of_class[measured], counts[measured].astype(np.float64)
    group = np.array(count_groups(counts[measured]))
    return {
        "forgetting": _mean(lost),
        "forgetting_task_mean": _mean(np.array([lost[phases == p].mean() for p in np.unique(phases)])),
        **{f"forgetting_{name}": _mean(lost[group == name]) for name in GROUPS},
        "forgetting_count_corr": spearman(np.round(lost, 9), images),  # 3/7 - 2/7 and 2/7 - 1/7 are a tie
    }


def _hits(scores: NDArray[np.float32], labels: Ints) -> Floats:
    hits: Floats = (predictions(scores) == labels).astype(np.float64)
    return hits


def _class_means(hits: Floats, labels: Ints, n_classes: int) -> Floats:
    images = np.bincount(labels, minlength=n_classes)
    right = np.bincount(labels, weights=hits, minlength=n_classes)
    with np.errstate(invalid="ignore"):
        means: Floats = 100 * right / images
    return means


def _by_phase(hits: Floats, labels: Ints, phase_of_class: Ints) -> Floats:
    return _class_means(hits, phase_of_class[labels], int(phase_of_class.max()) + 1)


def _task_mean(hits: Floats, labels: Ints, phase_of_class: Ints) -> float:
    accuracies = _by_phase(hits, labels, phase_of_class)
    return _mean(accuracies[~np.isnan(accuracies)])


def _percent(hits: Floats) -> float:
    return float(100 * hits.sum() / hits.size) if hits.size else float("nan")


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def _ranks(values: Floats) -> Floats:
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(times) - (times - 1) / 2)[place]


def _require_fitting(
    scores: Mapping[str, NDArray[np.float32]],
    labels: Ints,
    phase_of_class: Ints,
    counts: Ints,
    history: Floats,
) -> None:
    n_classes = len(phase_of_class)
    wrong = [name for name, array in scores.items() if array.shape != (len(labels), n_classes)]
    if not scores or wrong:
        raise ValueError(f"scores {wrong} must be [{len(labels)}, {n_classes}]: test images by seen classes")
    if counts.shape != (n_classes,) or history.ndim != 2 or history.shape[1] != n_classes:
        raise ValueError(f"counts {counts.shape} and history {history.shape} must cover {n_classes} classes")
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}")
