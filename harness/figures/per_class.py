"""What `per_class.csv` says of a run: one value and one weight norm for each class after each phase."""

import csv
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.harness.metrics import spearman
from imbcil.harness.store.run_folder import RunFolder

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MEASURES = {"accuracy": "accuracy", "ap": "AP"}  # columns that say how well a class is known


@dataclass(frozen=True)
class PerClass:
    """A run's classes in order of arrival, C of them, after T phases; NaN where a class had not come yet."""

    measure: str  # "accuracy", "AP"
    values: Floats  # [T, C], percent
    norms: Floats  # [T, C], L2 norm of the head's weights
    counts: Ints  # [C], training images before the hold-out
    arrival: Ints  # [C], phase of arrival
    groups: tuple[str, ...]  # [C]: many, medium, few; head, medium, tail
    names: tuple[str, ...]  # [C]

    @property
    def phases(self) -> int:
        return len(self.values)

    def forgetting(self) -> tuple[NDArray[np.bool_], Floats]:
        """Which classes [C] are of earlier phases and measured, and what those lost: best earlier value minus the last."""
        old = (self.arrival < self.phases - 1) & ~np.isnan(self.values[-1])
        if not old.any():
            return old, np.zeros(0)
        old &= ~np.isnan(self.values[:-1]).all(axis=0)
        lost: Floats = np.nanmax(self.values[:-1, old], axis=0) - self.values[-1, old]
        return old, lost

    def forgetting_correlation(self) -> float:
        """Spearman's correlation of forgetting with training images; NaN where either is constant."""
        old, lost = self.forgetting()
        return spearman(lost, self.counts[old].astype(np.float64)) if old.any() else float("nan")


def read_per_class(folder: RunFolder) -> PerClass:
    """A run's table. Raises BadInput naming the file where it is missing or damaged."""
    path = folder.path / "per_class.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return _parsed(list(csv.DictReader(stream)))
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from None
    except (KeyError, ValueError, TypeError, IndexError, csv.Error):
        raise BadInput(f"{path} is damaged; run the same command with --force.") from None


def _parsed(rows: list[dict[str, str]]) -> PerClass:
    measure = next(name for name in MEASURES if name in rows[0])
    phases = max(int(row["phase"]) for row in rows) + 1
    classes = max(int(row["class_id"]) for row in rows) + 1
    if not 0 < phases * classes <= 10**8 or len(rows) > phases * classes:
        raise ValueError("sizes that no run has")
    values, norms = np.full((phases, classes), np.nan), np.full((phases, classes), np.nan)
    counts, arrival = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    groups, names = [""] * classes, [""] * classes
    for row in rows:
        phase, number = int(row["phase"]), int(row["class_id"])
        values[phase, number] = _number(row[measure])
        norms[phase, number] = _number(row.get("weight_norm", ""))
        counts[number], arrival[number] = int(row["train_count"]), int(row["arrival_phase"])
        groups[number], names[number] = row["group"], row["name"]
    return PerClass(MEASURES[measure], values, norms, counts, arrival, tuple(groups), tuple(names))


def _number(text: str) -> float:
    return float(text) if text else float("nan")
