"""What stands over a column: protocol, dataset, and whatever tells it from its neighbours."""

from collections.abc import Sequence

from imbcil.reports.captions import SHORT
from imbcil.reports.grouping import ColumnKey

USUAL = ("exp rho 100", "none")  # what a dataset's name says already: NAME-lt, NAME


def headings(columns: Sequence[ColumnKey]) -> dict[ColumnKey, tuple[str, ...]]:
    """Lines for each column. Embedded data and an order that is not `shuffled` are always said."""
    lines = {column: _lines(column, columns) for column in columns}
    texts = list(lines.values())
    return {
        column: (*said, f"family {column.family[:SHORT]}") if texts.count(said) > 1 else said
        for column, said in lines.items()
    }


def _lines(column: ColumnKey, columns: Sequence[ColumnKey]) -> tuple[str, ...]:
    alike = [other for other in columns if (other.column, other.dataset) == (column.column, column.dataset)]
    special = []
    if column.order != "shuffled":
        special.append(column.order)
    if len({other.imbalance for other in alike}) > 1 or column.imbalance not in USUAL:
        special.append(column.imbalance)
    if column.embedded:
        special.append("embedded data")
    return (column.column, column.dataset, *([", ".join(special)] if special else []))
