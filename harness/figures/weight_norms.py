"""Figure: how long the head's weights are for old and new classes, by training count and phase by phase."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from imbcil.harness.figures.per_class import PerClass
from imbcil.harness.figures.style import (
    COLUMN,
    NEW,
    OLD,
    SETTINGS,
    count_axis,
    legend_below,
    new_figure,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (("old classes", OLD, "o"), ("new classes", NEW, "^"))


@mpl.rc_context(SETTINGS)  # type: ignore[arg-type]
def weight_norm_figure(runs: Mapping[str, PerClass], title: str) -> "Figure":
    """One row a learner (label -> its classes): norms after the last phase by training count, and means by phase.

    Old classes came before the phase, new ones with it. Bars reach from the lower to the upper quartile.
    """
    names = {label: wrapped(label, COLUMN) for label in runs}  # over both panels
    figure = new_figure(1.55 * len(runs) + 0.55)
    rows = figure.subplots(len(runs), 2, squeeze=False, sharey="row")
    for place, (label, run) in enumerate(runs.items()):
        by_count, by_phase = rows[place]
        _by_count(by_count, run)
        _by_phase(by_phase, run)
        by_count.set_ylabel("L2 norm of class weights")
        by_count.set_title(names[label], loc="left")
        by_count.set_ylim(bottom=0)
        by_count.locator_params(axis="y", nbins=4)
        if place == len(runs) - 1:
            by_count.set_xlabel("training images of the class")
            by_phase.set_xlabel("after phase (mean, quartiles)")
    figure.suptitle(title)
    handles = [
        rows[0][0].scatter([], [], s=9, color=colour, marker=marker, label=name)
        for name, colour, marker in KINDS
    ]
    legend_below(figure, handles)
    return figure


def _by_count(axes: "Axes", run: PerClass) -> None:
    last, new = run.norms[-1], run.arrival == run.phases - 1
    for (_, colour, marker), which in zip(KINDS, (~new, new), strict=True):
        axes.scatter(
            run.counts[which], last[which], s=7, color=colour, marker=marker, alpha=0.75, linewidths=0
        )
    count_axis(axes, run.counts.tolist())


def _by_phase(axes: "Axes", run: PerClass) -> None:
    for (_, colour, marker), shift, newest in zip(KINDS, (-0.12, 0.12), (False, True), strict=True):
        phases, middles, lows, highs = [], [], [], []
        for phase, norms in enumerate(run.norms):
            which = (run.arrival == phase) if newest else (run.arrival < phase)
            found = norms[which & ~np.isnan(norms)]
            if found.size:
                low, high = np.quantile(found, (0.25, 0.75))
                phases.append(phase + 1 + shift)
                middles.append(found.mean())
                lows.append(max(found.mean() - low, 0))
                highs.append(max(high - found.mean(), 0))
        axes.errorbar(
            phases, middles, yerr=(lows, highs), color=colour, marker=marker, markersize=2.6, linewidth=0.9,
            elinewidth=0.7,
        )  # fmt: skip
    step = max(1, run.phases // 5)
    axes.set_xticks(range(1, run.phases + 1, step))
