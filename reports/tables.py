"""From stored runs to tables: one table for each set of conditions, one column for each scenario family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imbcil.reports import captions
from imbcil.reports.aggregate import Summary, summarise
from imbcil.reports.collect import Collection, StoredRun
from imbcil.reports.grouping import (
    ColumnKey,
    Conditions,
    RowKey,
    by_conditions,
    column_of,
    conditions_of,
    newest_per_seed,
    rows_of,
)
from imbcil.reports.headings import headings
from imbcil.reports.labels import legend, row_label, row_tags, short_names
from imbcil.reports.left_out import older_code_notes, replaced_notes
from imbcil.reports.metric_names import full_name, unknown_metric
from imbcil.reports.model import Cell, Report, Row, Slot, Table
from imbcil.reports.plan import Layout, Request
from imbcil.reports.printed import PublishedRow, published_rows
from imbcil.reports.printed_rows import agreement_rows, attach_printed_rows
from imbcil.reports.ranking import needed_slots, with_marks


@dataclass(frozen=True)
class _Group:
    """Runs of one table."""

    conditions: Conditions
    runs: Sequence[StoredRun]
    unfinished: Sequence[StoredRun]
    request: Request


def build_report(collection: Collection, request: Request | None = None) -> Report:
    """All tables that the finished runs fill. Raises UnknownName for a metric that no run has."""
    request = request or Request()
    finished, unfinished = list(collection.finished), list(collection.unfinished)
    if request.layout:
        finished = [run for run in finished if request.layout.takes(run)]
        unfinished = [run for run in unfinished if request.layout.takes(run)]
    _require_known(request, finished)
    conditions_in = request.layout.conditions_of if request.layout else conditions_of
    groups = by_conditions(finished, conditions_in)
    if request.layout:
        groups |= {conditions: [] for conditions in request.layout.conditions(groups)}
    tables = []
    for conditions, runs in groups.items():
        waiting = [run for run in unfinished if conditions_in(run) == conditions]
        table = _build(_Group(conditions, runs, waiting, request))
        if table.slots:
            tables.append(table)
    return Report(tuple(tables), tuple(_unfinished_notes(unfinished)), collection.warnings)


def _build(group: _Group) -> Table:
    columns = _columns(group)
    printed = _printed(group, columns)
    slots = tuple(_slots(group, columns, printed))
    rows = [_row(key, runs, slots, group) for key, runs in _rows(group).items()]
    rows = [row for row in rows if not row.predictor or any(cell.measured for cell in row.cells)]
    rows = with_marks(_with_gaps_named(rows, slots, group), slots)
    shown = attach_printed_rows(rows, printed, slots, group.conditions, _unchanged(group.runs))
    if group.request.layout:
        shown += agreement_rows(rows, printed, slots, group.conditions)
    layout = group.request.layout
    return Table(
        title=captions.title(layout.title if layout else "Results", group.conditions),
        conditions=group.conditions,
        slots=slots,
        headings=headings(columns),
        rows=tuple(shown),
        caption=tuple(_caption(group, slots, shown, printed)),
        notes=(*replaced_notes(group.runs), *older_code_notes(group.runs)),
    )


def _columns(group: _Group) -> tuple[ColumnKey, ...]:
    """The layout's columns with the families found for them, else those of the runs by name."""
    found = sorted({column_of(run) for run in group.runs}, key=column_order)
    if not group.request.layout:
        return tuple(found)
    columns: list[ColumnKey] = []
    for planned in group.request.layout.planned():
        families = [key for key in found if replace(key, family="", embedded=False, switches="") == planned]
        columns += families or [planned]
    if group.request.layout.printed_rows:
        printed = {column for row in _printed(group, tuple(columns)) for column, _ in row.values}
        columns = [column for column in columns if column in printed or column in found]
    return tuple(columns)


def _slots(group: _Group, columns: tuple[ColumnKey, ...], printed: Sequence[PublishedRow]) -> list[Slot]:
    """A column of the table for each of ours and each metric; a layout of printed rows has no empty ones."""
    slots = [Slot(column, metric) for column in columns for metric in _metrics(group)]
    if not (group.request.layout and group.request.layout.printed_rows):
        return slots
    filled = {place for row in printed for place in row.values}
    filled |= {(column_of(run), metric) for run in group.runs for metric in run.final}
    return [slot for slot in slots if (slot.column, slot.metric) in filled]


def column_order(key: ColumnKey) -> tuple[object, ...]:
    """Sorts columns as a reader expects them: real data first, lfs-5 before lfs-10."""
    parts = key.column.split("-")
    return (
        key.embedded,
        key.dataset,
        parts[0],
        tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts[1:]),
        key.order,
        key.imbalance,
        key.family,
    )


def _metrics(group: _Group) -> tuple[str, ...]:
    """The wanted metrics that at least one run of the table has (all of them where nothing was run)."""
    wanted = group.request.metrics_for(group.conditions.label_kind)
    present = {metric for run in group.runs for metric in run.final}
    return tuple(metric for metric in wanted if not group.runs or metric in present)


def _rows(group: _Group) -> dict[RowKey, list[StoredRun]]:
    rows = rows_of(group.runs)
    if not group.request.layout:
        return rows
    planned: dict[RowKey, list[StoredRun]] = {}
    for method in group.request.layout.methods_of(group.conditions.recipe):
        mine = {key: runs for key, runs in rows.items() if key.method == method}
        planned |= mine or ({} if group.request.layout.printed_rows else {RowKey(method): []})
    return planned


def _row(key: RowKey, runs: Sequence[StoredRun], slots: Sequence[Slot], group: _Group) -> Row:
    return Row(
        kind="measured",
        label=row_label(key, short_names()),
        method=key.method,
        predictor=key.predictor,
        tags=row_tags(key),
        cells=tuple(_cell(key, runs, slot, group) for slot in slots),
        settings=dict(key.variant),
        origin=key.origin,
    )


def _with_gaps_named(rows: Sequence[Row], slots: Sequence[Slot], group: _Group) -> list[Row]:
    """Rows tagged `incomplete` where they lack a column that others fill, or a seed that is still to finish."""
    needed = needed_slots([row.cells for row in rows], slots)
    columns = {slot.column for slot in slots}
    waiting = {run.info.method for run in group.unfinished if column_of(run) in columns}
    named = []
    for row in rows:
        filled = [row.cells[place].measured is not None for place in needed]
        gap = any(filled) and (not all(filled) or row.method in waiting)
        named.append(replace(row, tags=(*row.tags, "incomplete")) if gap else row)
    return named


def _cell(key: RowKey, runs: Sequence[StoredRun], slot: Slot, group: _Group) -> Cell:
    here = [run for run in runs if column_of(run) == slot.column]
    if not here:
        images = group.request.images_at_hand(slot.column.dataset)
        return Cell(images=images, interval=group.request.interval)
    found = _summary(newest_per_seed(here), _of_predictor(slot.metric, key.predictor))
    return Cell(measured=found, interval=group.request.interval)


def _summary(runs: Mapping[int, StoredRun], metric: str) -> Summary | None:
    """Mean over the seeds; nothing where one of them lacks the metric."""
    values = {seed: run.final[metric] for seed, run in runs.items() if metric in run.final}
    return summarise(values) if len(values) == len(runs) else None


def _of_predictor(metric: str, predictor: str) -> str:
    return metric.replace("final/", f"final/{predictor}/", 1) if predictor else metric


def _printed(group: _Group, columns: tuple[ColumnKey, ...]) -> list[PublishedRow]:
    """Printed rows of the table's learners; where the layout wants them also those of learners without a row."""
    request, wanted = group.request, set(_metrics(group))
    found = published_rows(
        columns,
        group.conditions.memory,
        recipe=group.conditions.recipe,
        include_recalled=request.include_recalled,
    )
    found = [row for row in found if any(metric in wanted for _, metric in row.values)]
    if request.layout and request.layout.printed_rows:
        here = {key.method for key in _rows(group)}
        return [row if row.method in here else replace(row, method="") for row in found]
    methods = set(_methods(group))
    return [row for row in found if row.method in methods]


def _methods(group: _Group) -> Sequence[str]:
    layout: Layout | None = group.request.layout
    if layout:
        return layout.methods_of(group.conditions.recipe)
    return sorted({run.info.method for run in group.runs})


def _unchanged(runs: Sequence[StoredRun]) -> set[tuple[str, str, ColumnKey]]:
    """Cells (learner, origin, column) of which every run follows recipe and preset to the letter."""
    changed = {(run.info.method, run.origin, column_of(run)) for run in runs if run.overrides}
    return {(run.info.method, run.origin, column_of(run)) for run in runs} - changed


def _caption(
    group: _Group, slots: Sequence[Slot], rows: Sequence[Row], printed: Sequence[PublishedRow]
) -> list[str]:
    digests: dict[ColumnKey, set[str]] = {}
    for run in group.runs:
        digests.setdefault(column_of(run), set()).add(run.info.digest)
    said = [captions.metric_sentence(metric) for metric in dict.fromkeys(slot.metric for slot in slots)]
    said.append(captions.marks_sentence(rows))
    said.append(captions.conditions_sentence(group.conditions) if group.runs else "Nothing was run here yet.")
    said += captions.recipe_sentences(group.conditions, {(r.info.recipe, r.info.dataset) for r in group.runs})
    said += captions.data_sentences(
        tuple(dict.fromkeys(slot.column for slot in slots)), digests, group.conditions.label_kind
    )
    if printed:
        stands = {row.table.stand(group.conditions) for row in printed}
        said += captions.published_sentences(printed, rows, stands)
    return said + legend(set(_methods(group)), short_names())


def _unfinished_notes(runs: Sequence[StoredRun]) -> list[str]:
    if not runs:
        return []
    said = [
        f"{run.info.method}, {run.info.column} of {run.info.dataset}, seed {run.info.seed} "
        f"({run.state}, {len(run.phases)} of {len(run.info.phases)} phases)"
        for run in runs
    ]
    return [f"Not finished, so not shown: {'; '.join(said)}."]


def _require_known(request: Request, runs: Sequence[StoredRun]) -> None:
    known = {metric for run in runs for metric in run.final}
    for metric in request.metrics:
        if runs and full_name(metric) not in known:
            raise unknown_metric(metric, known)
