"""Figure: what each old class has lost, against its training count: learners side by side."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from imbcil.harness.figures.per_class import PerClass
from imbcil.harness.figures.style import (
    COLUMN,
    GROUPS,
    SETTINGS,
    count_axis,
    legend_below,
    new_figure,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 2  # panels beside each other in a column's width


@mpl.rc_context(SETTINGS)  # type: ignore[arg-type]
def forgetting_figure(runs: Mapping[str, PerClass], title: str) -> "Figure":
    """One panel a learner (label -> its classes), all on the same axes; each names mean and correlation."""
    wide = min(ABREAST, len(runs))
    high = math.ceil(len(runs) / wide)
    names = {label: wrapped(label, COLUMN / wide - 0.3) for label in runs}
    lines = max(name.count("\n") for name in names.values())
    figure = new_figure((1.5 + 0.12 * lines) * high + 0.75)
    panels = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, (label, run) in zip(panels, runs.items(), strict=False):
        _draw(panel, names[label], run)
    for empty in panels[len(runs) :]:
        empty.set_axis_off()
    measure = next(iter(runs.values())).measure
    figure.suptitle(f"{title}\nρ: Spearman's correlation of forgetting with training images")
    for panel in panels[max(len(runs) - wide, 0) : len(runs)]:
        panel.set_xlabel("training images of the class")
        panel.tick_params(labelbottom=True)
    figure.supylabel(f"{measure} lost (points)", fontsize=mpl.rcParams["axes.labelsize"])
    shown = [name for name in GROUPS if any(name in run.groups for run in runs.values())]
    legend_below(
        figure,
        [
            panels[0].scatter([], [], s=9, color=GROUPS[name][0], marker=GROUPS[name][1], label=name)
            for name in shown
        ],
    )
    return figure


def _draw(axes: "Axes", label: str, run: PerClass) -> None:
    old, lost = run.forgetting()
    counts, groups = run.counts[old], np.array(run.groups)[old]
    for name, (colour, marker) in GROUPS.items():
        which = groups == name
        axes.scatter(counts[which], lost[which], s=7, color=colour, marker=marker, alpha=0.75, linewidths=0)
    axes.axhline(0, color="0.6", linewidth=0.5, zorder=0)
    count_axis(axes, run.counts.tolist())
    correlation = run.forgetting_correlation()
    spearman = "undefined" if math.isnan(correlation) else f"{correlation:+.2f}"
    mean = f"mean {lost.mean():.1f}, " if lost.size else ""
    axes.set_title(f"{label}\n{mean}ρ {spearman}", loc="left")
