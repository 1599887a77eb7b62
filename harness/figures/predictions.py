"""Figure: a few test images with what a learner says of them, what is true, and what it has not met yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from imbcil.harness.figures.style import COLUMN, SETTINGS, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 3  # images beside each other
MOST_FALSE = 4  # labels of an image that are said and not true; the rest are counted
LINE = 0.125  # inches
IGNORED = 255
RIGHT, WRONG, MISSED, LATER = "#007A5A", "#C04A00", "#0072B2", "0.4"  # each has a sign of its own, too


@dataclass(frozen=True)
class Judged:
    """One test image [H, W, 3] uint8; `probabilities` [K] of the seen classes; `truth` [C] of all classes: 1, 0 or 255
    (ignored), columns in order of arrival."""

    row: int
    image: NDArray[np.uint8]
    probabilities: NDArray[np.float64]
    truth: NDArray[np.uint8]


Line = tuple[str, str]  # text, colour


@mpl.rc_context(SETTINGS)  # type: ignore[arg-type]
def prediction_figure(
    images: Sequence[Judged], names: Sequence[str], threshold: float, title: str
) -> "Figure":
    """The images, each over its labels: + said and true, x said and not true, - true and not said, with the
    probability; ? ignored; ... true, of a class that has not come yet."""
    lines = [lines_of(image, names, threshold) for image in images]
    deep = max(len(mine) for mine in lines)
    high = -(-len(images) // ABREAST)
    side = COLUMN / ABREAST - 0.1
    heading = "\n".join(wrapped(line, COLUMN) for line in title.split("\n"))
    figure = new_figure(high * (side + 0.18 + LINE * deep) + 0.3 + LINE * (heading.count("\n") + 2))
    panels = figure.subplots(high, ABREAST, squeeze=False).ravel()
    for axes, image, mine in zip(panels, images, lines, strict=False):
        _draw(axes, image, mine, side)
    for axes in panels[len(images) :]:
        axes.set_axis_off()
    figure.set_layout_engine("constrained", hspace=0.02, wspace=0.02)
    figure.suptitle(heading)
    signs = "+ right   x wrong   - missed   ... of a later class"
    figure.supxlabel(f"said above {threshold:g}:   {signs}", fontsize=6)
    return figure


def lines_of(image: Judged, names: Sequence[str], threshold: float) -> list[Line]:
    """What is written below an image, the surest first within each kind."""
    seen = len(image.probabilities)
    order = np.argsort(-image.probabilities, kind="stable").tolist()
    said = [number for number in order if image.probabilities[number] > threshold]
    kinds = {
        "+": ([n for n in said if image.truth[n] == 1], RIGHT),
        "x": ([n for n in said if image.truth[n] == 0], WRONG),
        "-": ([n for n in order if image.truth[n] == 1 and n not in said], MISSED),
        "?": ([n for n in said if image.truth[n] == IGNORED], LATER),
    }
    lines: list[Line] = []
    for sign, (numbers, colour) in kinds.items():
        shown = numbers[:MOST_FALSE] if sign == "x" else numbers
        lines += [(f"{sign} {names[n]} {image.probabilities[n]:.2f}", colour) for n in shown]
        if len(shown) < len(numbers):
            lines.append((f"x {len(numbers) - len(shown)} more", colour))
    later = np.flatnonzero(image.truth[seen:] == 1) + seen
    return lines + [(f"... {names[n]}", LATER) for n in later.tolist()]


def _draw(axes: "Axes", image: Judged, lines: Sequence[Line], side: float) -> None:
    axes.imshow(image.image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"test image {image.row}", loc="left", fontsize=6)
    for place, (text, colour) in enumerate(lines):
        axes.annotate(
            text, (0, 0), xycoords="axes fraction", xytext=(0, -72 * LINE * (place + 0.25)),
            textcoords="offset points", va="top", color=colour, fontsize=6.5,
        )  # fmt: skip
