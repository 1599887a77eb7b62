"""How many training images each class keeps: exponential, step and few-shot profiles."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput

DEFAULT_RHO = 100.0
Rank = Literal["label", "arrival", "shuffled-arrival"]


def profile(kind: str, n_max: int, n_classes: int, rho: float) -> NDArray[np.int64]:
    """Images per class by rank [C], the largest class first, each at least 1.

    exp: int(n_max * (1/rho)^(c/(C-1))), truncated (Cui et al. 2019; LDAM; LT-CIL).
    step: the first half (rounded down) keeps n_max, the others int(n_max / rho) (LDAM).
    few-shot: the same two sizes; the first half is rounded up, as the base of `lfh` is (LT-CIL).
    Raises BadInput for an unknown kind or a rho below 1.
    """
    if not rho >= 1:
        raise BadInput(f"rho = {rho}: it is the largest class over the smallest, so at least 1.")
    mu = 1.0 / rho
    if kind == "exp":
        counts = [int(n_max * mu ** (rank / max(n_classes - 1, 1))) for rank in range(n_classes)]
    elif kind in ("step", "few-shot"):
        large = n_classes // 2 if kind == "step" else (n_classes + 1) // 2
        counts = [n_max if rank < large else int(n_max * mu) for rank in range(n_classes)]
    else:
        raise BadInput(f"imbalance = {kind}: write exp, step, few-shot or none.")
    return np.maximum(np.asarray(counts, dtype=np.int64), 1)


def class_quotas(
    kind: str, rho: float, available: NDArray[np.int64], order: tuple[int, ...], rank: Rank
) -> NDArray[np.int64]:
    """Training images to keep of each original label [C]; a class with fewer images keeps all of them.

    rank says which class is the largest: `label` (label 0; LT-CIL's CIFAR-100), `arrival` (the first to
    arrive), `shuffled-arrival` (sizes shuffled by numpy seed 0, then dealt out in order of arrival;
    LT-CIL's ImageNet-Subset). Few-shot always ranks by arrival: its base is what is plentiful.
    `n_max` is the largest class (label) or the class that arrives first, as in the released code.
    """
    if kind == "none":
        return available.copy()
    arrival = np.asarray(order, dtype=np.int64)
    by_label = rank == "label" and kind != "few-shot"
    n_max = int(available.max()) if rank == "label" else int(available[arrival[0]])
    sizes = profile(kind, n_max, len(order), rho)
    if rank == "shuffled-arrival" and kind != "few-shot":
        np.random.RandomState(0).shuffle(sizes)
    quotas = np.empty_like(sizes)
    quotas[np.arange(len(order)) if by_label else arrival] = sizes
    return np.minimum(quotas, available)


def profile_text(kind: str, rho: float) -> str:
    """How captions call a profile: `exp rho 100`, `none`."""
    return "none" if kind == "none" else f"{kind} rho {rho:g}"
