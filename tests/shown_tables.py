"""Tables of a store as tests look at them: by row heading."""

from imbcil.reports.collect import collect
from imbcil.reports.plan import Request
from imbcil.reports.tables import build_report

TASK_MEAN, TOTAL = "final/avg_acc_task_mean", "final/avg_acc_total"


def report(store, **request):
    return build_report(collect(store), Request(**request))


def only_table(store, **request):
    (table,) = report(store, **request).tables
    return table


def texts(table, metric=TASK_MEAN):
    """Row heading -> the cells of one metric."""
    return {
        row.heading: [c.text for c, s in zip(row.cells, table.slots, strict=True) if s.metric == metric]
        for row in table.rows
    }


def marks(table, metric=TASK_MEAN):
    return {
        row.heading: [c.mark for c, s in zip(row.cells, table.slots, strict=True) if s.metric == metric]
        for row in table.rows
    }
