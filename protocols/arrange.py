"""Labels in, phases out: order, profile, sampling, split and hold-out put together. Pure; touches no disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.catalogue import DatasetEntry, TailRule, split_name
from imbcil.protocols.holdout import split_holdout
from imbcil.protocols.imbalance import DEFAULT_RHO, Rank, class_quotas
from imbcil.protocols.orders import class_order
from imbcil.protocols.sampling import Rows, rows_by_class, sample_rows
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import phase_sizes


@dataclass(frozen=True)
class ScenarioPhase:
    """One phase; rows are row numbers into the dataset's train or test arrays."""

    index: int
    lo: int  # first arrival id
    hi: int  # one past the last arrival id
    classes: tuple[int, ...]  # original labels in order of arrival
    train_before_holdout: Rows
    train: Rows
    holdout: Rows
    test: Rows


@dataclass(frozen=True)
class DatasetLabels:
    """What an arrangement needs to know of a dataset, with or without its images."""

    train: NDArray[np.int64]  # [N]
    test: NDArray[np.int64]  # [M]
    names: tuple[str, ...]  # by original label
    train_codes: NDArray[np.uint8] | None = None  # [N, C] codes of several labels an image, else None
    test_codes: NDArray[np.uint8] | None = None  # [M, C]

    @classmethod
    def from_counts(cls, entry: DatasetEntry) -> "DatasetLabels":
        """Labels of an imagined listing in label order, from the catalogue's counts."""
        labels = np.arange(entry.classes, dtype=np.int64)
        names = tuple(str(label) for label in labels)
        return cls(np.repeat(labels, entry.train_per_class), np.repeat(labels, entry.test_per_class), names)


@dataclass(frozen=True)
class MultiTargets:
    """Several labels an image, after the switches: 1 positive, 0 negative, 255 ignored, by original label."""

    train: NDArray[np.uint8]  # [N, C]
    test: NDArray[np.uint8]  # [M, C]
    difficult: str
    crowd: str


@dataclass(frozen=True)
class Arrangement:
    """Everything that settings and labels decide."""

    order: tuple[int, ...]  # arrival id -> original label
    sizes: tuple[int, ...]  # classes per phase
    kind: str  # profile
    rho: float
    quirk: bool
    kept: tuple[Rows, ...]  # training rows by original label, before the hold-out
    phases: tuple[ScenarioPhase, ...]
    train_fixed: bool  # every class keeps the same training images under every order
    test_fixed: bool  # and the same test images, whatever the order and the sample
    targets: MultiTargets | None = None  # several labels an image
    rho100: NDArray[np.int64] | None = None  # [C] by original label: the exp profile's sizes at rho 100

    def train_rows(self) -> Rows:
        """Every training row of every phase, the hold-out included; ascending and once each with several labels
        an image, where phases share images."""
        rows = np.concatenate([phase.train_before_holdout for phase in self.phases])
        return rows if self.targets is None else np.unique(rows)

    def test_rows(self) -> Rows:
        """Every test row of every phase; with several labels an image, all there are."""
        if self.targets is not None:
            return np.arange(len(self.targets.test), dtype=np.int64)
        return np.concatenate([phase.test for phase in self.phases])


def arrange(settings: ProtocolSettings, entry: DatasetEntry | None, labels: DatasetLabels) -> Arrangement:
    """Apply the settings. Raises BadInput for a split, order or profile that the labels do not allow."""
    n_classes = len(labels.names)
    kind, rho = _profile_of(settings)
    rule = TailRule() if entry is None else entry.tail
    sizes = phase_sizes(settings, n_classes)
    published = settings.order == "ordered" and kind != "none"
    order = class_order(rule.ordered_as if published else settings.order, labels.names, settings.order_shift)
    kept = _kept_rows(labels.train, settings, rule, kind, rho, order)
    test = rows_by_class(labels.test, n_classes)
    if entry is not None and entry.tailed_test:
        test = _kept_rows(labels.test, settings, rule, kind, rho, order)
    quirk = settings.data.holdout_quirk and not (entry and entry.list_path)
    phases = _phases(sizes, order, kept, test, settings, quirk)
    by_label = kind == "none" or (kind != "few-shot" and rule.rank == "label")
    test_fixed = kind == "none" or not (entry and entry.tailed_test)
    at_100 = _rho100_sizes(labels.train, settings, rule, order) if kind == "exp" else None
    return Arrangement(
        order, sizes, kind, rho, quirk, tuple(kept), phases, by_label, test_fixed, rho100=at_100
    )


def _profile_of(settings: ProtocolSettings) -> tuple[str, float]:
    tailed = split_name(settings.dataset)[1]
    kind = settings.imbalance or ("exp" if tailed else "none")
    if kind == "none" and settings.rho is not None:
        raise BadInput(
            f"rho = {settings.rho:g} has no meaning without a profile; add imbalance: exp or step."
        )
    if kind == "none" and tailed:
        raise BadInput(f"imbalance = none contradicts the dataset {settings.dataset}; leave its -lt out.")
    return kind, DEFAULT_RHO if settings.rho is None else settings.rho


def _kept_rows(
    labels: NDArray[np.int64],
    settings: ProtocolSettings,
    rule: TailRule,
    kind: str,
    rho: float,
    order: tuple[int, ...],
) -> list[Rows]:
    """Rows of each original label that the profile keeps."""
    rows = rows_by_class(labels, len(order))
    if kind == "none":
        return rows
    available = np.array([len(mine) for mine in rows], dtype=np.int64)
    quotas = class_quotas(kind, rho, available, order, _rank(settings, rule))
    return sample_rows(rows, quotas, rule.sampling, settings.data.sampling_seed + settings.sample_shift)


def _rank(settings: ProtocolSettings, rule: TailRule) -> Rank:
    return rule.ordered_rank if settings.order == "ordered" else rule.rank


def _rho100_sizes(
    labels: NDArray[np.int64], settings: ProtocolSettings, rule: TailRule, order: tuple[int, ...]
) -> NDArray[np.int64]:
    available = np.bincount(labels, minlength=len(order)).astype(np.int64)
    return class_quotas("exp", DEFAULT_RHO, available, order, _rank(settings, rule))


def _phases(
    sizes: Sequence[int],
    order: tuple[int, ...],
    kept: Sequence[Rows],
    test: Sequence[Rows],
    settings: ProtocolSettings,
    quirk: bool,
) -> tuple[ScenarioPhase, ...]:
    borders = np.cumsum([0, *sizes]).tolist()
    phases = []
    for index, (lo, hi) in enumerate(pairwise(borders)):
        classes = order[lo:hi]
        listed = sorted(classes)  # the released code lists a phase by ascending original label
        train, holdout = split_holdout(
            kept, classes, settings.data.holdout, quirk, settings.data.sampling_seed
        )
        phases.append(
            ScenarioPhase(
                index=index,
                lo=lo,
                hi=hi,
                classes=classes,
                train_before_holdout=np.concatenate([kept[label] for label in listed]),
                train=train,
                holdout=holdout,
                test=np.concatenate([test[label] for label in listed]),
            )
        )
    return tuple(phases)
