"""Figures of stored runs that may stand beside each other: one scenario, one recipe, one seed."""

from collections.abc import Sequence
from pathlib import Path

from imbcil.harness.base.errors import BadInput
from imbcil.harness.figures.forgetting import forgetting_figure
from imbcil.harness.figures.of_run import Draw, run_title
from imbcil.harness.figures.per_class import read_per_class
from imbcil.harness.figures.style import checked_path, save_figure
from imbcil.harness.figures.weight_norms import weight_norm_figure
from imbcil.harness.store.layout import Store
from imbcil.reports.collect import StoredRun, collect
from imbcil.reports.grouping import column_of, conditions_of, newest_per_seed, rows_of
from imbcil.reports.labels import row_label, short_names
from imbcil.reports.request import Choice, require_store

FIGURES: dict[str, Draw] = {"weight-norms": weight_norm_figure, "forgetting": forgetting_figure}
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
    title = run_title(first) if len(seeds) == 1 else run_title(first).replace(f", seed {first.seed}", "", 1)
    save_figure(FIGURES[figure](tables, title), out)
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
