"""Numbers of a multi-label phase from stored scores alone: average precision, F1 at 0.5 and 0.8, forgetting.

scores [M, K] are logits of all test images (float32), targets [M, K] uint8: 1 positive, 0 negative, 255 ignored.
Published metrics use the images with at least one seen class. A class without a positive among them is undefined: it
is left out of every mean over classes and counted in `classes_without_positives`; `map_legacy` scores it 0, as the
released codes do. All values in percent; what is undefined is left out, never NaN. Nothing here knows a learner.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.metrics import Floats, Ints, spearman

Bytes = NDArray[np.uint8]
Scores = NDArray[np.float32]

THRESHOLDS = (0.8, 0.5)  # of a sigmoid, exceeded strictly; 0.8: KRT, CSC, MULTI-LANE; 0.5: AGCN, PRS
GROUPS = ("head", "medium", "tail")
HEAD_FROM, TAIL_BELOW = 100, 20  # training positives of the class's own phase
IGNORED = 255


def average_precision(scores: Scores, targets: Bytes) -> Floats:
    """AP of each class [K] in 0..1; NaN without a positive.

    Mean over a class's positives of the precision at their rank, in descending order of score; ties keep the order
    of the rows (stable sort). Ignored cells take no rank. Without interpolation, as KRT, CSC and L3A compute it.
    """
    ignored = targets.T == IGNORED
    values = np.where(ignored | np.isnan(scores.T), -np.inf, scores.T)  # a class in one piece
    order = np.argsort(-values, axis=1, kind="stable")
    hit = np.take_along_axis(targets.T == 1, order, axis=1)
    classes, places = np.nonzero(hit)  # class by class, best rank first
    ranks = places + 1
    if ignored.any():  # they lie among the lowest: beside scores of minus infinity they must not count
        ranks = np.cumsum(~np.take_along_axis(ignored, order, axis=1), axis=1)[classes, places]
    total = hit.sum(axis=1)
    before = np.repeat(np.cumsum(total) - total, total)
    precision = (np.arange(len(ranks)) - before + 1) / ranks
    summed = np.bincount(classes, weights=precision, minlength=len(hit))
    result: Floats = np.where(total > 0, summed / np.maximum(total, 1), np.nan)
    return result


def f1_metrics(scores: Scores, targets: Bytes, threshold: float) -> dict[str, float]:
    """`cf1_mean`, `cf1_harmonic` and `of1` in percent at a threshold on the sigmoid (strictly above it).

    cf1_mean: mean over classes of each class's F1 (KRT, CSC, MULTI-LANE, PRS); cf1_harmonic: harmonic mean of mean
    precision and mean recall (AGCN, ML-GCN). Precision is 0 where nothing is predicted, F1 0 where nothing is hit.
    of1 pools all cells, those of classes without a positive too.
    """
    border = np.log(threshold) - np.log1p(-threshold)
    predicted = (scores.astype(np.float64) > border) & (targets != IGNORED)
    positive = targets == 1
    hits = (predicted & positive).sum(axis=0)
    claimed, present = predicted.sum(axis=0), positive.sum(axis=0)
    measured = present > 0
    if not measured.any():
        return {}
    precision = (hits / np.maximum(claimed, 1))[measured]
    recall = hits[measured] / present[measured]
    per_class = 2 * hits[measured] / (claimed[measured] + present[measured])
    return {
        "cf1_mean": 100 * float(per_class.mean()),
        "cf1_harmonic": 100 * _harmonic(float(precision.mean()), float(recall.mean())),
        "of1": 100 * float(2 * hits.sum() / (claimed.sum() + present.sum())),
    }


def count_groups(counts: Ints) -> tuple[str, ...]:
    """ "head", "medium" or "tail" for each class, from the positives of its own phase."""
    return tuple("head" if n >= HEAD_FROM else "tail" if n < TAIL_BELOW else "medium" for n in counts)


def per_class_ap(scores: Scores, targets: Bytes) -> Floats:
    """AP in percent of each class [K] over the test images with at least one seen class; NaN without a positive."""
    seen = (targets == 1).any(axis=1)
    return 100 * average_precision(scores[seen], targets[seen])


def map_by_phase(scores: Scores, targets: Bytes, phase_of_class: Ints) -> Floats:
    """Mean AP in percent over the classes of each phase [t + 1]; NaN where no class has a positive."""
    return _by_phase(per_class_ap(scores, targets), phase_of_class)


def multilabel_phase_metrics(
    scores: Mapping[str, Scores], targets: Bytes, phase_of_class: Ints, counts: Ints, history: Floats
) -> dict[str, float]:
    """All `phase/*` metrics after the newest phase.

    scores: predictor -> [M, K], the first is primary; targets [M, K]; phase_of_class [K]; counts [K], positives of
    each class's own phase before the hold-out; history [t, K], AP in percent after earlier phases, NaN where unseen.
    Raises ValueError when shapes do not fit together.
    """
    n_classes = len(phase_of_class)
    if not scores or any(array.shape != (len(targets), n_classes) for array in scores.values()):
        raise ValueError(f"scores must be [{len(targets)}, {n_classes}]: test images by seen classes")
    if counts.shape != (n_classes,) or history.ndim != 2 or history.shape[1] != n_classes:
        raise ValueError(f"counts {counts.shape} and history {history.shape} must cover {n_classes} classes")
    primary, *others = scores
    seen = (targets == 1).any(axis=1)
    now = per_class_ap(scores[primary], targets)
    found: dict[str, float] = {
        "map": _mean(now),
        "map_legacy": float(np.where(np.isnan(now), 0.0, now).mean()),
        "map_chance": _mean(_prevalence(targets[seen])),
        "classes_without_positives": float(np.isnan(now).sum()),
        "map_base": _view(scores[primary], targets, phase_of_class == 0),
        "map_new": _view(scores[primary], targets, phase_of_class == phase_of_class.max()),
    }
    group = np.array(count_groups(counts))
    found |= {f"map_{name}": _mean(now[group == name]) for name in GROUPS}
    for threshold in THRESHOLDS:
        f1 = f1_metrics(scores[primary][seen], targets[seen], threshold)
        found |= {f"{name}_t{threshold}": value for name, value in f1.items()}
        found[f"fpr_no_seen_class_t{threshold}"] = _false_positives(
            scores[primary][~seen], targets[~seen], threshold
        )
    found |= _forgetting(now, history, phase_of_class, counts)
    found |= {f"{name}/map": _mean(per_class_ap(scores[name], targets)) for name in others}
    return {f"phase/{name}": float(value) for name, value in found.items() if np.isfinite(value)}


def _prevalence(targets: Bytes) -> Floats:
    """Share of positives of each class [K] in percent, which is what scores by chance are worth; NaN without one."""
    positives, cells = (targets == 1).sum(axis=0), (targets != IGNORED).sum(axis=0)
    return np.where(positives > 0, 100 * positives / np.maximum(cells, 1), np.nan)


def _view(scores: Scores, targets: Bytes, classes: NDArray[np.bool_]) -> float:
    """mAP of some classes over the test images that have one of them: the "base" and "new" views of KRT."""
    return _mean(per_class_ap(scores[:, classes], targets[:, classes]))


def _false_positives(scores: Scores, targets: Bytes, threshold: float) -> float:
    """Share of cells above the threshold in images without any seen class, in percent."""
    border = np.log(threshold) - np.log1p(-threshold)
    negative = targets == 0
    claimed = (scores.astype(np.float64) > border) & negative
    return float(100 * claimed.sum() / negative.sum()) if negative.any() else float("nan")


def _forgetting(now: Floats, history: Floats, phase_of_class: Ints, counts: Ints) -> dict[str, float]:
    """Best AP after an earlier phase minus the AP now, over classes of phases before the newest."""
    measured = (phase_of_class < phase_of_class.max()) & ~np.isnan(now) & ~np.isnan(history).all(axis=0)
    if not measured.any():
        return {}
    lost = np.nanmax(history[:, measured], axis=0) - now[measured]
    group = np.array(count_groups(counts[measured]))
    return {
        "forgetting": _mean(lost),
        "forgetting_task_mean": _mean(_by_phase(lost, phase_of_class[measured])),
        **{f"forgetting_{name}": _mean(lost[group == name]) for name in GROUPS},
        "forgetting_count_corr": spearman(lost, counts[measured].astype(np.float64)),
    }


def _by_phase(values: Floats, phase_of_class: Ints) -> Floats:
    return np.array([_mean(values[phase_of_class == p]) for p in range(int(phase_of_class.max()) + 1)])


def _harmonic(left: float, right: float) -> float:
    return 2 * left * right / (left + right) if left + right > 0 else 0.0


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
