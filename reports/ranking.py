"""Best and second of each column, under the rules of fair marking."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from imbcil.reports.model import Cell, Mark, Row, Slot

UNRANKED_TAGS = {"upper bound", "oracle memory", "leaky weights", "incomplete", "not ranked"}


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is."""
    if metric.endswith("_corr"):
        return 0
    return -1 if "forgetting" in metric else 1


def ranked_slots(slots: Sequence[Slot]) -> list[int]:
    """Slots that are marked: embedded data get no marks beside real data."""
    real = [place for place, slot in enumerate(slots) if not slot.column.embedded]
    return real or list(range(len(slots)))


def needed_slots(rows: Sequence[Sequence[Cell]], slots: Sequence[Slot]) -> list[int]:
    """Marked slots that somebody fills: whoever lacks one of them is incomplete."""
    return [place for place in ranked_slots(slots) if any(cells[place].measured for cells in rows)]


def with_marks(rows: Sequence[Row], slots: Sequence[Slot]) -> list[Row]:
    """Rows with the best and the second of each marked slot; at least two rows must compete.

    Values that print alike share a mark; where two are best nobody is second.
    """
    competing = [
        row for row in rows if any(c.measured for c in row.cells) and not UNRANKED_TAGS & set(row.tags)
    ]
    marks: dict[tuple[int, int], Mark] = {}
    for place in needed_slots([row.cells for row in competing], slots):
        sign = direction(slots[place].metric)
        found = [(id(row), _shown(row.cells[place]) * sign) for row in competing]
        values = sorted({value for _, value in found}, reverse=True)
        if len(found) < 2 or not sign:
            continue
        best = [row for row, value in found if value == values[0]]
        marks |= {(row, place): "best" for row in best}
        if len(best) == 1:
            marks |= {(row, place): "second" for row, value in found if value == values[1]}
    overlapping = {
        (id(row), place)
        for row in competing
        for (other, place), mark in marks.items()
        if mark == "best" and (id(row), place) not in _bests(marks)
        for best in competing
        if id(best) == other and intervals_overlap(row.cells[place], best.cells[place])
    }
    return [
        replace(
            row,
            cells=tuple(
                replace(cell, mark=marks.get((id(row), place), ""), overlaps=(id(row), place) in overlapping)
                for place, cell in enumerate(row.cells)
            ),
        )
        for row in rows
    ]


def intervals_overlap(left: Cell, right: Cell) -> bool:
    """Whether the 95 % intervals of two means share a point; without two intervals nothing is known: False."""
    a, b = left.measured, right.measured
    if a is None or b is None or a.half_width is None or b.half_width is None:
        return False
    return abs(a.mean - b.mean) <= a.half_width + b.half_width


def _bests(marks: Mapping[tuple[int, int], Mark]) -> set[tuple[int, int]]:
    return {key for key, mark in marks.items() if mark == "best"}


def _shown(cell: Cell) -> float:
    if cell.measured is None:
        raise ValueError("an incomplete row cannot compete")
    return round(cell.measured.mean, 2)
