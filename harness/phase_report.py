"""What is written when a phase ends: its metrics, the per-class table, the accuracy matrix and its picture."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imbcil.harness import multilabel_metrics
from imbcil.harness.base.files import atomic_write
from imbcil.harness.contract import Learner
from imbcil.harness.costs import Costs
from imbcil.harness.metrics import accuracy_matrix_row, per_class_accuracy, phase_metrics
from imbcil.harness.multilabel_metrics import map_by_phase, multilabel_phase_metrics, per_class_ap
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder, now_ms
from imbcil.harness.store.run_info import RunInfo
from imbcil.protocols.groups import count_groups

Floats = NDArray[np.float64]


def write_phase_report(
    folder: RunFolder,
    info: RunInfo,
    learner: Learner,
    phase: int,
    scores: dict[str, NDArray[np.float32]],
    arrays: dict[str, NDArray[Any]],
    costs: Costs,
    quality: dict[str, float],
) -> PhaseRecord:
    """Write the phase's files and its line in `phases.jsonl`; returns the line that stands there.

    `quality`: what the harness measured besides, such as how good pseudo-labels were.
    """
    phase_of_class = arrival_phases(info)[: info.phases[phase].hi]
    counts = np.asarray(info.raw_counts)[: len(phase_of_class)]
    measure = measures(info)
    history = class_history(folder, next(iter(scores)), phase, len(phase_of_class), measure)
    again = {"regrouped": {"rho100": np.asarray(info.rho100_counts)[: len(phase_of_class)]}}
    metrics = measure.metrics(
        scores,
        measure.truth(arrays),
        phase_of_class,
        counts,
        history,
        **(again if info.rho100_counts else {}),
    )
    metrics |= {f"phase/{name}": value for name, value in quality.items()}
    for name, value in learner.tools.logged.items():
        metrics[f"phase/{info.learner}/{name}"] = value
    image_bytes = learner.tools.image_bytes
    parameters = sum(value.numel() for value in learner.net.parameters())
    metrics |= costs.metrics(parameters, len(learner.memory), image_bytes)
    primary = next(iter(scores.values()))
    truth = measure.truth(arrays)
    accuracy = measure.per_class(primary, truth)
    columns = {"weight_norm": learner.net.head.row_norms().cpu().numpy()}
    columns |= {name: value.numpy() for name, value in learner.tools.logged_per_class.items()}
    _write_per_class(folder, info, phase, accuracy, columns, measure)
    _write_matrix(folder, info, phase, measure.by_phase(primary, truth, phase_of_class))
    return folder.append_record(PhaseRecord(phase=phase, time_ms=now_ms(), metrics=metrics))


def name_unmeasured(
    info: RunInfo, phase: int, arrays: dict[str, NDArray[Any]], say: Callable[[str], None]
) -> None:
    """Say which seen classes have no positive test image, with several labels an image."""
    if "test_targets" not in arrays:
        return
    positives = (arrays["test_targets"] == 1).sum(axis=0)
    names = [info.class_names[number] for number in np.flatnonzero(positives == 0)]
    if names:
        say(
            f"phase {phase + 1} of {len(info.phases)}: no positive test image of {', '.join(names)}; left out of means over classes"
        )


def arrival_phases(info: RunInfo) -> NDArray[np.int64]:
    """The phase in which each class [C] arrives."""
    sizes = [part.hi - part.lo for part in info.phases]
    return np.repeat(np.arange(len(sizes)), sizes)


@dataclass(frozen=True)
class Measures:
    """What is measured of each class and phase, by the kind of labels. `column`: its name in `per_class.csv`."""

    column: str
    stored: str  # the truth among the stored arrays
    metrics: Callable[..., dict[str, float]]
    per_class: Callable[..., Floats]
    by_phase: Callable[..., Floats]
    groups: Callable[[NDArray[np.int64]], tuple[str, ...]]

    def truth(self, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return arrays[f"test_{self.stored}"]


SINGLE = Measures("accuracy", "labels", phase_metrics, per_class_accuracy, accuracy_matrix_row, count_groups)
MULTI = Measures(
    "ap", "targets", multilabel_phase_metrics, per_class_ap, map_by_phase, multilabel_metrics.count_groups
)


def measures(info: RunInfo) -> Measures:
    """Accuracies, or average precision where an image may have several labels."""
    return MULTI if info.label_kind == "multi" else SINGLE


def class_history(
    folder: RunFolder, predictor: str, phase: int, n_classes: int, measure: Measures = SINGLE
) -> Floats:
    """Accuracy or AP [phase, n_classes] in percent after each earlier phase, NaN where unseen; from scores."""
    history = np.full((phase, n_classes), np.nan)
    for earlier in range(phase):
        stored = folder.load_scores(earlier)
        values = measure.per_class(stored[f"test/{predictor}"], measure.truth(stored))
        history[earlier, : len(values)] = values
    return history


def _write_per_class(
    folder: RunFolder,
    info: RunInfo,
    phase: int,
    accuracy: Floats,
    columns: dict[str, NDArray[Any]],
    measure: Measures,
) -> None:
    groups = measure.groups(np.asarray(info.raw_counts))
    path = folder.path / "per_class.csv"
    rows = [row for row in _read(path) if int(row["phase"]) < phase]
    came = arrival_phases(info)
    labels = [label for part in info.phases for label in part.classes]
    for number, value in enumerate(accuracy):
        row = {
            "phase": phase, "class_id": number, "label": labels[number], "name": info.class_names[number],
            "arrival_phase": int(came[number]), "train_count": info.raw_counts[number], "group": groups[number],
            measure.column: "" if np.isnan(value) else repr(float(value)),
        }  # fmt: skip
        extra = {
            name: repr(float(column[number])) for name, column in columns.items() if number < len(column)
        }
        rows.append({key: str(item) for key, item in {**row, **extra}.items()})
    _write(path, rows)


def _write_matrix(folder: RunFolder, info: RunInfo, phase: int, row: Floats) -> None:
    path = folder.path / "accuracy_matrix.csv"
    rows = [kept for kept in _read(path) if int(kept["phase"]) < phase]
    values = {f"task_{task}": "" if np.isnan(value) else repr(float(value)) for task, value in enumerate(row)}
    rows.append({"phase": str(phase), **values})
    _write(path, rows)


def draw_matrix(folder: RunFolder, info: RunInfo) -> None:
    """`figures/accuracy_matrix.png`: accuracy (several labels an image: mean AP) on the classes of each task (columns) after each phase (rows)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    phases = len(info.phases)
    title = f"{info.method} s{info.seed}, {info.column} {info.dataset}"
    matrix = np.full((phases, phases), np.nan)
    for row in _read(folder.path / "accuracy_matrix.csv"):
        for task in range(phases):
            if value := row.get(f"task_{task}"):
                matrix[int(row["phase"]), task] = float(value)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(matrix, vmin=0, vmax=100, cmap="viridis")
    axes.set(xlabel="task (classes by phase of arrival)", ylabel="after phase", title=title)
    axes.set_xticks(range(phases))
    axes.set_yticks(range(phases))
    if phases <= 12:
        for (y, x), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                axes.text(
                    x,
                    y,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="w" if value < 60 else "k",
                )
    figure.colorbar(image, label="mAP (%)" if info.label_kind == "multi" else "accuracy (%)")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    atomic_write(folder.figures / "accuracy_matrix.png", content.getvalue())


def _read(path: Any) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(path: Any, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
