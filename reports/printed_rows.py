"""Printed rows beside measured ones: each below the learner it belongs to, with a verdict where one is due."""

from collections.abc import Collection, Sequence

from imbcil.reports.grouping import ColumnKey, Conditions
from imbcil.reports.model import DAGGER, Cell, Row, Slot
from imbcil.reports.printed import PublishedRow
from imbcil.reports.verdicts import Verdict, verdict


def attach_printed_rows(
    rows: Sequence[Row],
    printed: Sequence[PublishedRow],
    slots: Sequence[Slot],
    conditions: Conditions,
    unchanged: Collection[tuple[str, ColumnKey]],
) -> list[Row]:
    """Every printed row follows the last row of its learner. `unchanged`: cells without any `--set`."""
    shown: list[Row] = []
    for place, row in enumerate(rows):
        shown.append(row)
        if place + 1 < len(rows) and rows[place + 1].method == row.method:
            continue
        measured = next(other for other in rows if other.method == row.method and not other.predictor)
        alone = sum(other.method == row.method and not other.predictor for other in rows) == 1
        for entry in printed:
            if entry.method == row.method:
                judged = entry.table.judges(conditions) and alone
                shown.append(_printed_row(entry, measured, slots, conditions, unchanged, judged=judged))
    return shown


def _printed_row(
    entry: PublishedRow,
    measured: Row,
    slots: Sequence[Slot],
    conditions: Conditions,
    unchanged: Collection[tuple[str, ColumnKey]],
    *,
    judged: bool,
) -> Row:
    cells = []
    for slot, cell in zip(slots, measured.cells, strict=True):
        value = entry.values.get((slot.column, slot.metric))
        if value is None:
            cells.append(Cell())
            continue
        said: Verdict | None = None
        if judged:
            kept = not cell.measured or (entry.method, slot.column) in unchanged
            full = kept and not conditions.reduced and conditions.recipe in entry.table.recipes
            said = verdict(cell.measured, value, full=full, images=cell.images)
        cells.append(Cell(published=value, verdict=said, images=cell.images))
    dagger = DAGGER if entry.status == "recalled" else ""
    return Row(
        kind="published",
        label=f"{entry.printed_as}{dagger}",
        method=entry.method,
        cells=tuple(cells),
        tags=("published", entry.status),
        status=entry.status,
        source=entry.source,
    )
