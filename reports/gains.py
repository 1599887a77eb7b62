"""What plug-ins add to learners: paired gains over the bare learner on a grid, Holm-corrected over all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imbcil.harness.base.errors import BadInput, ImbcilError
from imbcil.harness.base.registry import load_learner, load_plugin
from imbcil.harness.settings import MemorySettings
from imbcil.reports import captions
from imbcil.reports.collect import Collection, StoredRun
from imbcil.reports.comparison import corrected_differences, difference_sentences, seed_values
from imbcil.reports.differences import Difference, paired_difference
from imbcil.reports.grouping import ColumnKey, Conditions, RowKey, by_conditions, column_of, rows_of
from imbcil.reports.headings import headings
from imbcil.reports.labels import row_label, row_tags
from imbcil.reports.model import Cell, Report, Row, Slot, Table
from imbcil.reports.plan import GainLayout
from imbcil.reports.tables import column_order

NOT_DEFINED, NOT_RUN = "not defined", "not run"
Runs = Sequence[StoredRun]


@dataclass(frozen=True)
class Grid:
    """The gains under one set of conditions. Rows are combinations, those that were not run among them."""

    conditions: Conditions
    columns: tuple[ColumnKey, ...]
    rows: tuple[RowKey, ...]
    gains: Mapping[tuple[RowKey, ColumnKey], Difference]  # on the layout's metric, Holm-corrected
    split: Mapping[tuple[RowKey, ColumnKey, str], Difference]  # on its other metrics, untested
    refused: Mapping[str, str]  # combination -> why the contract does not allow it


def build_gains(collection: Collection, layout: GainLayout) -> Report:
    """The layout's tables, one for each set of conditions; an empty one where nothing was run."""
    tables = tuple(_table(grid, layout) for grid in gain_grids(collection.finished, layout))
    return Report(tables, (), collection.warnings)


def gain_grids(finished: Runs, layout: GainLayout) -> list[Grid]:
    """A grid for each set of conditions; a single empty one where nothing was run."""
    runs = [run for run in finished if layout.takes(run)]
    groups = by_conditions(runs)
    if not groups:
        return [_grid(layout.conditions(), [], layout)]
    return [_grid(conditions, found, layout) for conditions, found in groups.items()]


def _grid(conditions: Conditions, runs: Runs, layout: GainLayout) -> Grid:
    measured = {key: found for key, found in rows_of(runs).items() if not key.predictor}
    bare = _bare(measured)
    refused = {
        f"{learner}+{plugin}": reason
        for learner in layout.learners
        for plugin in layout.plugins
        if (reason := refusal(learner, plugin, conditions.memory))
    }
    rows = []
    for learner in layout.learners:
        for plugin in layout.plugins:
            method = f"{learner}+{plugin}"
            mine = [key for key in measured if key.method == method]
            rows += mine or [RowKey(method)]
    columns = tuple(sorted({column_of(run) for run in runs}, key=column_order)) or tuple(layout.planned())

    def gain(key: RowKey, column: ColumnKey, metric: str) -> Difference | None:
        base = bare.get((key.method.split("+")[0], key.origin), ())
        mine = measured.get(key, ())
        return paired_difference(seed_values(mine, column, metric), seed_values(base, column, metric))

    gains = {(key, column): gain(key, column, layout.metric) for key in rows for column in columns}
    split = {
        (key, column, metric): found
        for key in rows
        for column in columns
        for metric in layout.split
        if (found := gain(key, column, metric)) is not None
    }
    return Grid(conditions, columns, tuple(rows), corrected_differences(gains), split, refused)


def _bare(measured: Mapping[RowKey, Runs]) -> dict[tuple[str, str], Runs]:
    """(learner, origin) -> its runs without a plug-in. Raises BadInput where settings make it ambiguous."""
    bare: dict[tuple[str, str], Runs] = {}
    for key, runs in measured.items():
        if "+" not in key.method:
            if (key.method, key.origin) in bare:
                raise BadInput(
                    f"{key.method} was run bare with several settings; a gain needs one of them. "
                    "Leave out the others with another --store."
                )
            bare[key.method, key.origin] = runs
    return bare


def refusal(learner: str, plugin: str, memory: str) -> str | None:
    """Why the contract refuses this combination, in its own words; None where it does not."""
    from imbcil.harness.composition import check_composition  # brings torch, which no other table needs

    try:
        check_composition(
            load_learner(learner),
            learner,
            [(plugin, load_plugin(plugin))],
            MemorySettings(budget=memory),
            "single",
        )
    except ImbcilError as error:
        return str(error)
    return None


def _table(grid: Grid, layout: GainLayout) -> Table:
    metrics = (
        layout.metric,
        *(metric for metric in layout.split if any(key[2] == metric for key in grid.split)),
    )
    slots = tuple(Slot(column, metric) for column in grid.columns for metric in metrics)
    tested = sum(difference.p is not None for difference in grid.gains.values())
    shown = [metric.removeprefix("final/") for metric in metrics[1:]]
    caption = [
        captions.metric_sentence(layout.metric),
        *difference_sentences("with a plug-in minus the learner without", tested),
        *(
            [f"{', '.join(shown)}: the same gains after the last phase, by group, without a test."]
            if shown
            else []
        ),
        captions.conditions_sentence(grid.conditions) if grid.gains else "Nothing can be compared here yet.",
        *captions.data_sentences(grid.columns, {}),
    ]
    return Table(
        title=captions.title(layout.title, grid.conditions),
        conditions=grid.conditions,
        slots=slots,
        headings=headings(grid.columns),
        rows=tuple(_row(key, grid, slots, layout) for key in grid.rows),
        caption=tuple(caption),
        notes=tuple(f"{NOT_DEFINED.capitalize()}: {reason}" for reason in grid.refused.values()),
    )


def _row(key: RowKey, grid: Grid, slots: Sequence[Slot], layout: GainLayout) -> Row:
    cells = tuple(_cell(key, grid, slot, layout) for slot in slots)
    return Row(
        "difference", row_label(key, {}), key.method, cells, tags=row_tags(key), settings=dict(key.variant),
        origin=key.origin,
    )  # fmt: skip


def _cell(key: RowKey, grid: Grid, slot: Slot, layout: GainLayout) -> Cell:
    if slot.metric != layout.metric:
        return Cell(difference=grid.split.get((key, slot.column, slot.metric)))
    found = grid.gains.get((key, slot.column))
    if found is not None:
        return Cell(difference=found)
    return Cell(said=NOT_DEFINED if key.method in grid.refused else NOT_RUN)
