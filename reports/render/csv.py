"""A report as CSV: one line for each cell, so that nothing has to be parsed out of `35.40 ± 0.31 (3)`."""

import csv
import io

from imbcil.reports.model import Report
from imbcil.reports.render.records import FIELDS, cell_records


def draw(report: Report) -> str:
    """Header and cells; just the header where there is nothing."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cell_records(report))
    return stream.getvalue()
