"""Figure: gains of plug-ins over learners as a heat map, one panel a column of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import matplotlib.patches
import numpy as np

from imbcil.harness.figures.style import SETTINGS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = "RdBu"  # red loses, blue gains; told apart by colour-blind readers, and each cell has its number
SMALLEST_RANGE = 1.0  # points; smaller gains stay pale


@dataclass(frozen=True)
class GainCell:
    """One combination: its gain in points, or why it has none."""

    gain: float | None = None
    significant: bool = False
    state: Literal["measured", "not run", "not defined"] = "measured"


Cells = Mapping[tuple[str, str], GainCell]  # (learner, plug-in)


@mpl.rc_context(SETTINGS)  # type: ignore[arg-type]
def gain_figure(
    panels: Mapping[str, Cells], learners: Sequence[str], plugins: Sequence[str], title: str
) -> "Figure":
    """One panel for each column of the table (its heading -> cells), all with the same colours."""
    gains = [cell.gain for cells in panels.values() for cell in cells.values() if cell.gain is not None]
    limit = max([SMALLEST_RANGE, *map(abs, gains)])
    figure = new_figure((0.24 * len(learners) + 0.3) * len(panels) + 1.25)
    rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True).ravel()
    for axes, (heading, cells) in zip(rows, panels.items(), strict=True):
        image = _panel(axes, cells, learners, plugins, limit)
        axes.set_title(heading, loc="left")
    rows[-1].set_xticks(range(len(plugins)), plugins, rotation=28, ha="right", rotation_mode="anchor")
    bar = figure.colorbar(image, ax=list(rows), shrink=0.8, aspect=25, pad=0.02)
    bar.set_label("gain (points)")
    bar.outline.set_visible(False)
    figure.suptitle(f"{title}\n* p < 0.05, Holm-corrected; hatched: not defined; empty: not run")
    return figure


def _panel(
    axes: "Axes", cells: Cells, learners: Sequence[str], plugins: Sequence[str], limit: float
) -> "AxesImage":
    values = np.full((len(learners), len(plugins)), np.nan)
    for (learner, plugin), cell in cells.items():
        place = learners.index(learner), plugins.index(plugin)
        if cell.gain is not None:
            values[place] = cell.gain
    image = axes.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    for (learner, plugin), cell in cells.items():
        y, x = learners.index(learner), plugins.index(plugin)
        if cell.gain is not None:
            dark = abs(cell.gain) > 0.6 * limit
            text = f"{round(cell.gain, 1) + 0.0:+.1f}{'*' if cell.significant else ''}"
            axes.text(x, y, text, ha="center", va="center", color="white" if dark else "black")
        elif cell.state == "not defined":
            axes.add_patch(
                mpl.patches.Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, facecolor="0.93", edgecolor="0.6", hatch="////", linewidth=0
                )
            )
    axes.set_yticks(range(len(learners)), learners)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(plugins) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(learners) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    return image
