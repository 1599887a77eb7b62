"""Tables from finished runs, beside what papers printed."""

from imbcil.reports.summary import summary_table

__all__ = ["summary_table"]
