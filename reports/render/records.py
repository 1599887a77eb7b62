"""A report as flat records, one for each cell: what CSV and JSON carry."""

from collections.abc import Iterator

from imbcil.reports.differences import Difference
from imbcil.reports.model import Cell, Report, Row, Slot, Table

FIELDS = (
    *("kind", "label", "method", "predictor", "settings", "tags", "status", "source", "origin"),
    *("column", "dataset", "order", "imbalance", "embedded", "family", "metric"),
    *("recipe", "reduced", "overrides", "preset", "memory", "precision", "vary"),
    *("state", "mean", "std", "half_width_95", "n", "seeds", "mark", "published", "difference", "verdict"),
    *("p", "p_holm", "overlaps_best"),
)
Value = str | int | float | bool | None


def cell_records(report: Report) -> Iterator[dict[str, Value]]:
    """Every cell with all that identifies it. Empty cells are there, without a number."""
    for table in report.tables:
        for row in table.rows:
            for slot, cell in zip(table.slots, row.cells, strict=True):
                if row.kind == "measured" or cell.published is not None or cell.said or cell.difference:
                    yield {
                        **row_fields(row),
                        **slot_fields(slot),
                        **conditions_fields(table),
                        **cell_fields(cell),
                    }


def row_fields(row: Row) -> dict[str, Value]:
    return {
        "kind": row.kind,
        "label": row.label,
        "method": row.method,
        "predictor": row.predictor,
        "settings": " ".join(f"{key}={value}" for key, value in row.settings.items()),
        "tags": " ".join(tag.replace(" ", "-") for tag in row.tags),
        "status": row.status,
        "source": row.source,
        "origin": row.origin,
    }


def slot_fields(slot: Slot) -> dict[str, Value]:
    column = slot.column
    return {
        "column": column.column,
        "dataset": column.dataset,
        "order": column.order,
        "imbalance": column.imbalance,
        "embedded": column.embedded,
        "family": column.family,
        "metric": slot.metric,
    }


def conditions_fields(table: Table) -> dict[str, Value]:
    conditions = table.conditions
    return {
        "recipe": conditions.recipe,
        "reduced": conditions.reduced,
        "overrides": " ".join(f"{key}={value}" for key, value in conditions.overrides),
        "preset": conditions.preset,
        "memory": conditions.memory,
        "precision": conditions.precision,
        "vary": " ".join(conditions.vary),
    }


def cell_fields(cell: Cell) -> dict[str, Value]:
    measured, said = cell.measured, cell.verdict
    empty: dict[str, Value] = dict.fromkeys(FIELDS[FIELDS.index("state") :])
    if cell.said:
        return {**empty, "state": "summary", "mean": cell.number, "n": cell.count}
    if cell.difference is not None:
        return {**empty, **_difference_fields(cell.difference)}
    state = "measured" if measured else "published" if cell.published is not None else "not run"
    return {
        "state": state if cell.images or state != "not run" else "no images here",
        "mean": measured.mean if measured else None,
        "std": measured.std if measured else None,
        "half_width_95": measured.half_width if measured else None,
        "n": measured.n if measured else None,
        "seeds": " ".join(map(str, measured.seeds)) if measured else "",
        "mark": cell.mark,
        "published": cell.published,
        "difference": said.difference if said else None,
        "verdict": said.judgement if said else "",
        "p": None,
        "p_holm": None,
        "overlaps_best": cell.overlaps if measured else None,
    }


def _difference_fields(found: Difference) -> dict[str, Value]:
    return {
        "state": "difference",
        "mean": found.mean,
        "half_width_95": found.half_width,
        "n": found.n,
        "seeds": " ".join(map(str, found.seeds)),
        "p": found.p,
        "p_holm": found.p_holm,
    }
