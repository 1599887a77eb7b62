"""Printed rows beside measured ones: each below the learner it belongs to, with a verdict where one is due."""

from collections.abc import Collection, Mapping, Sequence

from imbcil.reports.agreement import Agreement, agreement
from imbcil.reports.grouping import ColumnKey, Conditions
from imbcil.reports.model import DAGGER, Cell, Row, Slot
from imbcil.reports.printed import PublishedRow, Stand
from imbcil.reports.verdicts import Verdict, verdict


def attach_printed_rows(
    rows: Sequence[Row],
    printed: Sequence[PublishedRow],
    slots: Sequence[Slot],
    conditions: Conditions,
    unchanged: Collection[tuple[str, str, ColumnKey]],
) -> list[Row]:
    """Every printed row follows the last row of its learner, once for each origin of measured ones.

    `unchanged`: (learner, origin, column) without any `--set`.
    """
    shown: list[Row] = []
    for place, row in enumerate(rows):
        shown.append(row)
        if place + 1 < len(rows) and _group(rows[place + 1]) == _group(row):
            continue
        primary = [other for other in rows if _group(other) == _group(row) and not other.predictor]
        for entry in printed:
            if entry.method == row.method:
                stand = entry.table.stand(conditions) if len(primary) == 1 else "apart"
                shown.append(_printed_row(entry, primary[0], slots, unchanged, stand))
    return shown + [
        _printed_row(entry, None, slots, unchanged, "apart") for entry in printed if not entry.method
    ]


def _group(row: Row) -> tuple[str, str]:
    return row.method, row.origin


def _printed_row(
    entry: PublishedRow,
    measured: Row | None,
    slots: Sequence[Slot],
    unchanged: Collection[tuple[str, str, ColumnKey]],
    stand: Stand,
) -> Row:
    cells, origin = [], measured.origin if measured else ""
    for slot, cell in zip(slots, measured.cells if measured else [Cell()] * len(slots), strict=True):
        value = entry.values.get((slot.column, slot.metric))
        if value is None:
            cells.append(Cell())
            continue
        said: Verdict | None = None
        if stand == "beside" and cell.measured is not None:
            said = Verdict("not judged", cell.measured.mean - value)
        elif stand in ("full", "reduced"):
            kept = not cell.measured or (entry.method, origin, slot.column) in unchanged
            said = verdict(cell.measured, value, full=kept and stand == "full", images=cell.images)
        cells.append(Cell(published=value, verdict=said, images=cell.images))
    dagger = DAGGER if entry.status == "recalled" else ""
    return Row(
        kind="published",
        label=f"{entry.printed_as}{dagger}",
        method=entry.method,
        cells=tuple(cells),
        tags=(f"published by {entry.table.short}" if entry.table.short else "published", entry.status),
        status=entry.status,
        source=entry.source,
        origin=origin,
    )


def agreement_rows(
    rows: Sequence[Row], printed: Sequence[PublishedRow], slots: Sequence[Slot], conditions: Conditions
) -> list[Row]:
    """For each printed table and origin: Kendall's tau and mean absolute difference of every column.

    Only of tables that the conditions may be compared with; recalled values never count.
    """
    tables = {entry.name: entry.table for entry in printed if entry.status != "recalled"}
    said: list[Row] = []
    for name, table in tables.items():
        if table.stand(conditions) not in ("full", "reduced"):
            continue
        entries = {e.method: e for e in printed if e.name == name and e.status != "recalled"}
        for origin in sorted({row.origin for row in rows}):
            mine = {row.method: row for row in _alone(rows, origin) if row.method in entries}
            columns = [_column(mine, entries, slot, place) for place, slot in enumerate(slots)]
            if any(column.cells for column in columns):
                said += _summary_rows(columns, origin, table.title if len(tables) > 1 else "")
    return said


def _alone(rows: Sequence[Row], origin: str) -> list[Row]:
    """Primary measured rows of learners that have just one: no settings to choose the nearer of."""
    mine = [r for r in rows if r.kind == "measured" and r.origin == origin and not r.predictor]
    return [row for row in mine if sum(other.method == row.method for other in mine) == 1]


def _column(
    rows: Mapping[str, Row], entries: Mapping[str, PublishedRow], slot: Slot, place: int
) -> Agreement:
    pairs = []
    for method, row in rows.items():
        found, value = row.cells[place].measured, entries[method].values.get((slot.column, slot.metric))
        if found is not None and value is not None:
            pairs.append((found.mean, value))
    return agreement([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _summary_rows(columns: Sequence[Agreement], origin: str, title: str) -> list[Row]:
    of = tuple(filter(None, (title, origin)))
    taus = [
        Cell(said=f"{c.tau:.2f} ({c.pairs})", number=c.tau, count=c.pairs)
        if c.tau is not None
        else Cell(said="no pair" if c.cells else "", count=c.pairs)
        for c in columns
    ]
    distances = [
        Cell(said=f"{c.distance:.2f} ({c.cells})", number=c.distance, count=c.cells)
        if c.distance is not None
        else Cell()
        for c in columns
    ]
    return [
        Row("summary", "Kendall's tau (pairs)", "", tuple(taus), tags=of, origin=origin),
        Row("summary", "mean |difference| (cells)", "", tuple(distances), tags=of, origin=origin),
    ]
