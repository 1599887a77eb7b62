"""Figure: how well each class is known after the last phase, learners beside each other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from imbcil.harness.figures.per_class import PerClass
from imbcil.harness.figures.style import LEARNERS, SETTINGS, legend_below, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.115  # inches a class
MOST_NAMES = 120  # classes that are named; more stand unnamed in this many rows' height
A_LINE_OF_LEGEND = 0.16


@mpl.rc_context(SETTINGS)  # type: ignore[arg-type]
def class_value_figure(runs: Mapping[str, PerClass], title: str) -> "Figure":
    """One row a class in order of arrival, phases parted by lines; one marker a learner (label -> its classes).

    A class's name has its training images in brackets; "-" stands for those that no test image shows.
    """
    first = next(iter(runs.values()))
    classes = len(first.counts)
    figure = new_figure(ROW * min(classes, MOST_NAMES) + 0.75 + A_LINE_OF_LEGEND * len(runs))
    axes = figure.subplots()
    rows = np.arange(classes)
    handles = []
    for (label, run), (colour, marker) in zip(runs.items(), LEARNERS, strict=False):
        mean = float(np.nanmean(run.values[-1])) if not np.isnan(run.values[-1]).all() else float("nan")
        name = wrapped(f"{label}, mean {mean:.1f}", figure.get_figwidth())
        handles.append(
            axes.scatter(
                run.values[-1], rows, s=11, color=colour, marker=marker, label=name, alpha=0.85, linewidths=0
            )
        )
    _name_classes(axes, first, np.all([np.isnan(run.values[-1]) for run in runs.values()], axis=0))
    axes.set_xlim(-2, 102)
    axes.set_xlabel(f"{first.measure} after the last phase (%)")
    axes.grid(axis="y", color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)
    figure.suptitle(f"{title}\nclasses in order of arrival (training images)")
    legend_below(figure, handles, columns=1)
    return figure


def _name_classes(axes: "Axes", run: PerClass, unmeasured: NDArray[np.bool_]) -> None:
    classes = len(run.counts)
    axes.set_ylim(classes - 0.5, -0.5)
    if classes <= MOST_NAMES:
        names = [f"{name} ({count:,})" for name, count in zip(run.names, run.counts.tolist(), strict=True)]
        axes.set_yticks(range(classes), names)
        for row in np.flatnonzero(unmeasured).tolist():
            axes.text(0, row, "-", va="center", ha="center", color="0.4")
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    for border in np.flatnonzero(np.diff(run.arrival)) + 0.5:
        axes.axhline(border, color="0.6", linewidth=0.5, zorder=0)
