"""The pictures that every run gets when it ends; trackers show them as its artifacts."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.figures.per_class import PerClass, read_per_class
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.store.run_info import RunInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[Mapping[str, PerClass], str], "Figure"]


def draw_run_figures(folder: RunFolder, info: RunInfo) -> None:
    """`figures/weight_norms.png` and `figures/forgetting.png`, where the run has what they show.

    A picture that cannot be drawn costs no result: it is left out.
    """
    from imbcil.harness.figures.forgetting import forgetting_figure
    from imbcil.harness.figures.style import save_figure
    from imbcil.harness.figures.weight_norms import weight_norm_figure

    with suppress(BadInput, RunStopped):
        run = read_per_class(folder)
        drawn: dict[str, Draw] = {"weight_norms": weight_norm_figure}
        if run.forgetting()[0].any():
            drawn["forgetting"] = forgetting_figure
        for name, draw in drawn.items():
            save_figure(draw({info.method: run}, run_title(info)), folder.figures / f"{name}.png")


def run_title(info: RunInfo) -> str:
    """Two lines: scenario and seed; recipe and preset. What is embedded or reduced is called so."""
    embedded, reduced = " (embedded data)" if info.embedded else "", " (reduced)" if info.reduced else ""
    changed = " (changed)" if info.overrides else ""
    return (
        f"{info.column} of {info.dataset}{embedded}, seed {info.seed}\n"
        f"recipe {info.recipe}{reduced}{changed}, preset {info.preset}, memory {info.memory}"
    )
