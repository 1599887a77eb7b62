"""The share of training images that a recipe keeps back from training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.randomness import numpy_generator
from imbcil.protocols.sampling import Rows


def split_holdout(
    rows: Sequence[Rows], classes: Sequence[int], share: float, quirk: bool, seed: int
) -> tuple[Rows, Rows]:
    """Rows that stay in training and rows that are held out of one phase, each in the phase's order.

    rows: training rows of every original label; classes: the phase's labels in order of arrival. The phase's
    list is ascending by original label. Classes take their turn in order of arrival; each gives numpy's
    round(share * n), half to even, with n what is left of it by then; the images are drawn by a generator
    keyed by seed and label (LT-CIL draws from Python's generator: its counts are matched, not its images).
    quirk: where that rounds to none, element 0 of the phase's list goes instead (LT-CIL's array loader);
    it belongs to the lowest label of the phase, not to the class. The last image of a phase stays.
    """
    labels = sorted(classes)
    owner = np.repeat(np.asarray(labels, np.int64), [len(rows[label]) for label in labels])
    listed = np.concatenate([rows[label] for label in labels])
    stays = np.ones(len(listed), dtype=bool)
    if share > 0:
        for label in classes:
            _hold_out_class(stays, np.flatnonzero(stays & (owner == label)), label, share, quirk, seed)
    return listed[stays], listed[~stays]


def _hold_out_class(
    stays: NDArray[np.bool_], mine: NDArray[np.intp], label: int, share: float, quirk: bool, seed: int
) -> None:
    """Clear in `stays` what one class gives; `mine` are the places in the list that are still its own."""
    count = int(np.round(share * len(mine)))
    if count:
        generator = numpy_generator("holdout", seed, label)
        stays[generator.choice(mine, size=count, replace=False)] = False
    elif quirk and stays.sum() > 1:
        stays[np.flatnonzero(stays)[0]] = False
