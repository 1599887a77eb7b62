"""What is written when a phase ends: its metrics, the per-class table, the accuracy matrix and its picture."""

import csv
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.files import atomic_write
from imbcil.harness.contract import Learner
from imbcil.harness.costs import Costs
from imbcil.harness.metrics import accuracy_matrix_row, count_groups, per_class_accuracy, phase_metrics
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder, now_ms
from imbcil.harness.store.run_info import RunInfo

Floats = NDArray[np.float64]


def write_phase_report(
    folder: RunFolder,
    info: RunInfo,
    learner: Learner,
    phase: int,
    scores: dict[str, NDArray[np.float32]],
    arrays: dict[str, NDArray[Any]],
    costs: Costs,
) -> PhaseRecord:
    """Write the phase's files and its line in `phases.jsonl`; returns the line that stands there."""
    labels = arrays["test_labels"]
    phase_of_class = arrival_phases(info)[: info.phases[phase].hi]
    counts = np.asarray(info.raw_counts)[: len(phase_of_class)]
    history = accuracy_history(folder, next(iter(scores)), phase, len(phase_of_class))
    metrics = phase_metrics(scores, labels, phase_of_class, counts, history)
    for name, value in learner.tools.logged.items():
        metrics[f"phase/{info.learner}/{name}"] = value
    image_bytes = learner.tools.image_bytes
    parameters = sum(value.numel() for value in learner.net.parameters())
    metrics |= costs.metrics(parameters, len(learner.memory), image_bytes)
    primary = next(iter(scores.values()))
    accuracy = per_class_accuracy(primary, labels)
    columns = {"weight_norm": learner.net.head.row_norms().cpu().numpy()}
    columns |= {name: value.numpy() for name, value in learner.tools.logged_per_class.items()}
    _write_per_class(folder, info, phase, accuracy, columns, count_groups(counts))
    _write_matrix(folder, info, phase, accuracy_matrix_row(primary, labels, phase_of_class))
    return folder.append_record(PhaseRecord(phase=phase, time_ms=now_ms(), metrics=metrics))


def arrival_phases(info: RunInfo) -> NDArray[np.int64]:
    """The phase in which each class [C] arrives."""
    sizes = [part.hi - part.lo for part in info.phases]
    return np.repeat(np.arange(len(sizes)), sizes)


def accuracy_history(folder: RunFolder, predictor: str, phase: int, n_classes: int) -> Floats:
    """Per-class accuracy [phase, n_classes] in percent after each earlier phase, NaN where unseen; from scores."""
    history = np.full((phase, n_classes), np.nan)
    for earlier in range(phase):
        stored = folder.load_scores(earlier)
        accuracy = per_class_accuracy(stored[f"test/{predictor}"], stored["test_labels"])
        history[earlier, : len(accuracy)] = accuracy
    return history


def _write_per_class(
    folder: RunFolder,
    info: RunInfo,
    phase: int,
    accuracy: Floats,
    columns: dict[str, NDArray[Any]],
    groups: tuple[str, ...],
) -> None:
    path = folder.path / "per_class.csv"
    rows = [row for row in _read(path) if int(row["phase"]) < phase]
    came = arrival_phases(info)
    labels = [label for part in info.phases for label in part.classes]
    for number, value in enumerate(accuracy):
        row = {
            "phase": phase, "class_id": number, "label": labels[number], "name": info.class_names[number],
            "arrival_phase": int(came[number]), "train_count": info.raw_counts[number], "group": groups[number],
            "accuracy": "" if np.isnan(value) else repr(float(value)),
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
    """`figures/accuracy_matrix.png`: accuracy on the classes of each task (columns) after each phase (rows)."""
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
    figure.colorbar(image, label="accuracy (%)")
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
