"""Figures of stored runs that may stand beside each other: one scenario, one recipe, one seed."""

from collections.abc import Sequence
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.harness.figures.forgetting import forgetting_figure
from imbcil.harness.figures.gains import GainCell, gain_figure
from imbcil.harness.figures.of_run import Draw, run_title
from imbcil.harness.figures.per_class import read_per_class
from imbcil.harness.figures.style import checked_path, save_figure
from imbcil.harness.figures.values import class_value_figure
from imbcil.harness.figures.weight_norms import weight_norm_figure
from imbcil.harness.store.layout import Store
from imbcil.reports.captions import recipe_name, title
from imbcil.reports.collect import StoredRun, collect
from imbcil.reports.gains import Grid, gain_grids
from imbcil.reports.grouping import ColumnKey, RowKey, column_of, conditions_of, newest_per_seed, rows_of
from imbcil.reports.headings import headings
from imbcil.reports.labels import row_label, short_names
from imbcil.reports.plan import load_gain_layout
from imbcil.reports.request import Choice, require_store

FIGURES: dict[str, Draw] = {
    "weight-norms": weight_norm_figure,
    "forgetting": forgetting_figure,
    "per-class": class_value_figure,
}
MOST_ROWS = 8  # learners in one figure of a column's width


def plot_runs(store: Store, figure: str, choice: Choice, seed: int | None, out: Path) -> list[str]:
    """Draw the chosen finished runs to `out`; returns what is in the picture, a line each, then warnings.

    Raises BadInput where nothing fits, or where what fits may not stand side by side.
    """
    checked_path(out)
    require_store(store)
    found = collect(store)
    runs = [run for run in found.finished if choice.takes(run)]
    if not runs:
        raise BadInput(f"No finished run of {store.root} fits; `imbcil-bench status` lists them.")
    _require_alike(runs)
    chosen = _one_of_each(runs, seed)
    if len(chosen) > MOST_ROWS:
        raise BadInput(f"{len(chosen)} learners fit and a figure holds {MOST_ROWS}; name them with --method.")
    seeds = {run.info.seed for run in chosen.values()}
    labels = {
        label if len(seeds) == 1 else f"{label}, seed {run.info.seed}": run for label, run in chosen.items()
    }
    tables = {label: read_per_class(store.run(run.info.run_key)) for label, run in labels.items()}
    if figure == "forgetting" and not any(table.forgetting()[0].any() for table in tables.values()):
        raise BadInput("These runs have one phase; there is nothing to forget in them.")
    first = next(iter(chosen.values())).info
    above = run_title(first) if len(seeds) == 1 else run_title(first).replace(f", seed {first.seed}", "", 1)
    save_figure(FIGURES[figure](tables, above), out)
    return [f"{label}: run {run.info.run_key}" for label, run in labels.items()] + list(found.warnings)


def _require_alike(runs: Sequence[StoredRun]) -> None:
    """Raises BadInput that names the options in which the runs differ, with their values."""
    options: dict[str, list[str]] = {
        "--dataset": sorted({run.info.dataset for run in runs}),
        "--column": sorted({run.info.column for run in runs}),
        "--recipe": sorted({run.info.recipe for run in runs}),
        "--preset": sorted({run.info.preset for run in runs}),
    }
    differing = [f"{option} {' or '.join(values)}" for option, values in options.items() if len(values) > 1]
    if differing:
        raise BadInput(f"Runs of several kinds fit; choose with {', '.join(differing)}.")
    if len({(column_of(run), conditions_of(run)) for run in runs}) > 1:
        raise BadInput(
            "Runs of several kinds fit (order, imbalance, memory, precision, changed settings or what seeds vary); "
            "name one of each learner with --run."
        )


def _one_of_each(runs: Sequence[StoredRun], seed: int | None) -> dict[str, StoredRun]:
    """Row label -> its run of `seed`, or of its lowest seed; in the order of the tables."""
    chosen, short = {}, short_names()
    for key, mine in rows_of(runs).items():
        if key.predictor:
            continue
        seeds = newest_per_seed(mine)
        if seed is None:
            chosen[row_label(key, short)] = seeds[min(seeds)]
        elif seed in seeds:
            chosen[row_label(key, short)] = seeds[seed]
    if not chosen:
        raise BadInput(f"No finished run that fits has seed {seed}.")
    return chosen


def plot_gains(store: Store, layout: str, choice: Choice, out: Path) -> list[str]:
    """Draw the heat map of a layout of gains to `out`; returns what could not be read.

    Raises BadInput where several tables fit, where none has a gain, or where a combination has several settings.
    """
    checked_path(out)
    require_store(store)
    gains = load_gain_layout(layout)
    if gains is None:
        raise BadInput(
            f"The table {layout} shows no gains of plug-ins; name one that does, such as plugins-cil."
        )
    found = collect(store)
    runs = [run for run in found.finished if choice.takes(run)]
    grids = [grid for grid in gain_grids(runs, gains) if grid.gains]
    if not grids:
        raise BadInput(
            f"No gain in {store.root}: no seed has both a learner and the same learner with a plug-in under the "
            "same conditions."
        )
    if len(grids) > 1:
        titles = "; ".join(title("table", grid.conditions) for grid in grids)
        raise BadInput(
            f"Gains under several conditions fit ({titles}); choose with --recipe, --preset or --dataset."
        )
    (grid,) = grids
    if twice := [
        key.method for key in grid.rows if sum(key.method == other.method for other in grid.rows) > 1
    ]:
        raise BadInput(f"{twice[0]} was run with several settings; a heat map has room for one of them.")
    short = short_names()
    panels = {
        " of ".join(lines[:2]) + "".join(f", {line}" for line in lines[2:]): {
            (
                short.get(key.method.split("+")[0], key.method.split("+")[0]),
                key.method.split("+")[1],
            ): _gain_cell(grid, key, column)
            for key in grid.rows
        }
        for column, lines in headings(grid.columns).items()
    }
    learners = [short.get(name, name) for name in gains.learners]
    seeds = sorted({found.n for found in grid.gains.values()})
    said = (
        f"gain in {gains.metric.removeprefix('final/')}, {' or '.join(map(str, seeds))} paired "
        f"seed{'' if seeds == [1] else 's'}\nrecipe {recipe_name(grid.conditions)}, preset {grid.conditions.preset}"
    )
    save_figure(gain_figure(panels, learners, gains.plugins, said), out)
    return list(found.warnings)


def _gain_cell(grid: Grid, key: RowKey, column: ColumnKey) -> GainCell:
    found = grid.gains.get((key, column))
    if found is not None:
        return GainCell(found.mean, found.significant)
    return GainCell(state="not defined" if key.method in grid.refused else "not run")
