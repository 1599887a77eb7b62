"""How figures look: legible at a column's width, told apart without colour, saved alike on every machine."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.base.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

COLUMN = 8.5 / 2.54  # inches: the width of a paper's column
SMALL = 6.5  # points
SUFFIXES = (".png", ".pdf", ".svg")
OLD, NEW = "#0072B2", "#D55E00"  # Okabe and Ito: safe for colour-blind readers
GROUPS = {  # colour and marker, so that neither is needed alone
    "many": ("#0072B2", "o"),
    "medium": ("#E69F00", "s"),
    "few": ("#CC79A7", "^"),
    "head": ("#0072B2", "o"),
    "tail": ("#CC79A7", "^"),
}
LEARNERS = (  # colour and marker of each learner in one panel: Okabe and Ito again
    ("#0072B2", "o"), ("#D55E00", "^"), ("#009E73", "s"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"),
    ("#000000", "X"), ("#8C6D00", "<"),
)  # fmt: skip
SETTINGS = {
    "font.size": SMALL,
    "axes.titlesize": SMALL + 0.5,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "figure.titlesize": SMALL + 0.5,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.2,
    "xtick.minor.width": 0.4,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "svg.hashsalt": "imbcil",
    "pdf.fonttype": 42,  # text stays text
    "axes.unicode_minus": False,
}


def new_figure(height: float, width: float = COLUMN) -> "Figure":
    """An empty figure of `width` x `height` inches. Only inside `matplotlib.rc_context(SETTINGS)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def checked_path(path: Path) -> Path:
    """`path`, if its name ends in a form that can be drawn. Raises BadInput otherwise."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--out {path}: the name has to end in {', '.join(SUFFIXES)}.")
    return path


def save_figure(figure: "Figure", path: Path) -> None:
    """Write PNG, PDF or SVG, as the name ends, whole or not at all; the same bytes for the same picture."""
    form = checked_path(path).suffix.lower()[1:]
    dates = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({name: SETTINGS[name] for name in ("svg.hashsalt", "pdf.fonttype")}):
        figure.savefig(content, format=form, dpi=300, metadata=dates)
    try:
        atomic_write(path, content.getvalue())
    except RunStopped as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise BadInput(f"--out {path} cannot be written: {reason}.") from None


def count_axis(axes: "Axes", counts: Sequence[int]) -> None:
    """Training images a class along x; logarithmic where they span more than a factor of ten."""
    if max(counts) > 10 * max(min(counts), 1):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def wrapped(label: str, width: float) -> str:
    """A learner's label on as many lines as it needs over a panel `width` inches wide."""
    return textwrap.fill(label, max(int(width * 16), 8))  # letters of this size take about 1/16 inch


def legend_below(figure: "Figure", handles: "Sequence[Patch | object]", columns: int | None = None) -> None:
    """Under the panels, in one line unless `columns` says otherwise."""
    figure.legend(
        handles=list(handles), loc="outside lower center", ncols=columns or len(handles), frameon=False,
        handletextpad=0.3, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
