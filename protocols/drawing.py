"""The picture of a protocol: how many images each class brings, and in which phase."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.describe import switches_text
from imbcil.protocols.scenario import Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00")  # colour-blind safe (Okabe and Ito), in turn from phase to phase
MANY, FEW = 100, 20  # borders of the groups: more than 100 is many, fewer than 20 few
MOST_NUMBERS = 25  # phases; beyond, numbers over the bars would overlap
MOST_NAMES = 30  # classes whose names fit below the bars
SUFFIXES = (".png", ".pdf", ".svg")


def draw_scenario(scenario: Scenario, path: Path) -> None:
    """Draw images per class in order of arrival, and per phase, to a PNG, PDF or SVG file.

    Raises BadInput for another suffix or a folder that cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--out {path}: the name has to end in {', '.join(SUFFIXES)}.")
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    classes, phases = figure.subplots(2, 1, height_ratios=(3, 2))
    held_out = any(len(phase.holdout) for phase in scenario.phases)
    _draw_classes(classes, scenario)
    _draw_phases(phases, scenario, held_out)
    figure.suptitle(
        f"{scenario.column} on {scenario.dataset}: order {scenario.settings.order}, "
        + (switches_text(scenario) or f"imbalance {scenario.imbalance_text}")
    )
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise BadInput(f"--out {path} cannot be written: {error.strerror or error}.") from None


def _draw_classes(axes: "Axes", scenario: Scenario) -> None:
    counts = scenario.raw_counts
    colours = [COLOURS[phase.index % 2] for phase in scenario.phases for _ in phase.classes]
    axes.bar(np.arange(len(counts)), counts, width=1.0, color=colours, linewidth=0)
    if counts.max() > 10 * max(int(counts.min()), 1):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.6 * max(int(counts.min()), 1))  # a class of one image shows too
    axes.yaxis.set_major_formatter("{x:,.0f}")
    multi = scenario.label_kind == "multi"
    for border, name, sign in (
        (MANY, "head" if multi else "many", "≥" if multi else ">"),
        (FEW, "tail" if multi else "few", "<"),
    ):
        if counts.min() < border < counts.max():
            axes.axhline(border, color="black", linewidth=0.8, linestyle="--")
            below = border == FEW
            axes.annotate(
                f"{name} {sign} {border}",
                (len(counts) - 0.5, border),
                xytext=(4, -2 if below else 2),
                textcoords="offset points",
                va="top" if below else "bottom",
                annotation_clip=False,
                fontsize=8,
            )
    for phase in scenario.phases[1:]:
        axes.axvline(phase.lo - 0.5, color="0.6", linewidth=0.5)
    if len(counts) <= MOST_NAMES and not any("$" in name for name in scenario.class_names):
        axes.set_xticks(np.arange(len(counts)), scenario.class_names)
        if max(map(len, scenario.class_names)) > 3:
            axes.tick_params(axis="x", rotation=60, labelsize=8)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xlabel("class, in order of arrival (colour changes with the phase)")
    axes.set_ylabel("training images\nbefore the hold-out")


def _draw_phases(axes: "Axes", scenario: Scenario, held_out: bool) -> None:
    index = np.arange(len(scenario.phases))
    train = np.array([len(phase.train) for phase in scenario.phases])
    kept_back = np.array([len(phase.holdout) for phase in scenario.phases])
    colours = [COLOURS[phase.index % 2] for phase in scenario.phases]
    axes.bar(index, train, color=colours)
    if held_out:
        axes.bar(
            index,
            kept_back,
            bottom=train,
            color="white",
            edgecolor="0.3",
            hatch="////",
            linewidth=0.6,
            label="held out",
        )
        axes.legend(loc="upper right", frameon=False, fontsize=8)
    shown = index if len(index) <= MOST_NUMBERS else index[:0]
    for place, total, amount in zip(shown, train + kept_back, train, strict=False):
        axes.annotate(
            f"{amount:,}", (place, total), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    axes.margins(y=0.15)
    axes.set_xticks(index)
    axes.set_xlabel("phase")
    axes.set_ylabel("training images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
