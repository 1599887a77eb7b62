"""Phases of multi-label class-incremental learning. Pure; touches no disk.

A phase trains on every image with at least one of its own classes, so an image comes back in each phase that
has a class of it (the "overlapped" rule: KRT, CSC, MULTI-LANE). What a learner sees of its other labels is
not decided here.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.randomness import numpy_generator
from imbcil.protocols.arrange import Arrangement, DatasetLabels, MultiTargets, ScenarioPhase
from imbcil.protocols.catalogue import DatasetEntry, split_name
from imbcil.protocols.datasets.source import CROWD, DIFFICULT, POSITIVE
from imbcil.protocols.orders import class_order
from imbcil.protocols.sampling import Rows
from imbcil.protocols.settings import DataSettings, ProtocolSettings
from imbcil.protocols.splits import phase_sizes

IGNORED = 255  # a cell that nobody trains on or scores


def arrange_multi(
    settings: ProtocolSettings, entry: DatasetEntry | None, labels: DatasetLabels
) -> Arrangement:
    """Apply the settings to labels with codes. Raises BadInput for a split that the labels do not allow."""
    _refuse_profiles(settings)
    sizes = phase_sizes(settings, len(labels.names))
    order = class_order(settings.order, labels.names, settings.order_shift)
    targets = visible_targets(settings.data, entry, labels)
    phases = _phases(sizes, order, targets, labels.names, settings)
    kept = tuple(np.flatnonzero(column == 1).astype(np.int64) for column in targets.train.T)
    return Arrangement(
        order, sizes, "none", 1.0, False, kept, phases, train_fixed=True, test_fixed=True, targets=targets
    )


def visible_targets(data: DataSettings, entry: DatasetEntry | None, labels: DatasetLabels) -> MultiTargets:
    """Codes [N, C] turned into 1, 0 and IGNORED by the switches `difficult` and `crowd`.

    Unset, they are what the dataset's catalogue entry says, else `negative` and `include`.
    """
    difficult = data.difficult or (entry.difficult if entry else "negative")
    crowd = data.crowd or "include"
    meaning = np.zeros(256, np.uint8)
    meaning[POSITIVE] = 1
    meaning[DIFFICULT] = {"negative": 0, "ignore": IGNORED, "positive": 1}[difficult]
    meaning[CROWD] = {"include": 1, "exclude": 0}[crowd]
    assert labels.train_codes is not None and labels.test_codes is not None
    return MultiTargets(meaning[labels.train_codes], meaning[labels.test_codes], difficult, crowd)


def _refuse_profiles(settings: ProtocolSettings) -> None:
    name, tailed = split_name(settings.dataset)
    if tailed or settings.imbalance not in (None, "none") or settings.rho is not None:
        raise BadInput(
            f"{name} has several labels an image, whose counts no profile can set; leave -lt, imbalance and rho out."
        )


def _phases(
    sizes: tuple[int, ...],
    order: tuple[int, ...],
    targets: MultiTargets,
    names: tuple[str, ...],
    settings: ProtocolSettings,
) -> tuple[ScenarioPhase, ...]:
    held = _held_out(targets.train == 1, settings.data)
    phases = []
    for index, (lo, hi) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
        classes = order[lo:hi]
        before, test = (_rows_with(part, classes) for part in (targets.train, targets.test))
        if not len(before):
            wanted = ", ".join(names[label] for label in classes)
            raise BadInput(
                f"phase {index} of {settings.dataset} ({wanted}) has no training image; choose another split or order."
            )
        phases.append(
            ScenarioPhase(
                index=index,
                lo=lo,
                hi=hi,
                classes=classes,
                train_before_holdout=before,
                train=before[~held[before]],
                holdout=before[held[before]],
                test=test,
            )
        )
    return tuple(phases)


def _rows_with(targets: NDArray[np.uint8], classes: tuple[int, ...]) -> Rows:
    """Rows with at least one positive of `classes`, ascending."""
    return np.flatnonzero((targets[:, list(classes)] == 1).any(axis=1)).astype(np.int64)


def _held_out(positive: NDArray[np.bool_], data: DataSettings) -> NDArray[np.bool_]:
    """Which images [N] are kept back from training: the same ones in every phase that they belong to.

    Drawn once over all images with a label, `holdout` of them; an image stays where one of its classes would
    be left without any.
    """
    held = np.zeros(len(positive), dtype=bool)
    labelled = np.flatnonzero(positive.any(axis=1))
    wanted, left = round(data.holdout * len(labelled)), positive.sum(axis=0)
    for row in numpy_generator("holdout", data.sampling_seed).permutation(labelled) if wanted else ():
        if (left[positive[row]] > 1).all():
            held[row] = True
            left -= positive[row]
            wanted -= 1
        if not wanted:
            break
    return held
