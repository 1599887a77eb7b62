"""Tables for Markdown (GitHub's dialect)."""

import re

from imbcil.reports.model import Cell, Report, Row, Table

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$])")


def draw(report: Report) -> str:
    """Every table with its caption below; second best is underlined by an HTML tag, which GitHub keeps."""
    parts = [part for table in report.tables for part in _table(table)]
    return "\n\n".join([*parts, *map(escape, report.notes)]) + "\n"


def escape(text: str) -> str:
    """User text that Markdown shows as it is."""
    return " ".join(SPECIAL.sub(r"\\\1", text).replace("&", "&amp;").split())


def _table(table: Table) -> list[str]:
    heads = ["learner"]
    for slot in table.slots:
        heads.append("<br>".join(map(escape, (*table.headings[slot.column], slot.metric_name))))
    lines = [heads, [":--", *("--:" for _ in table.slots)], *map(_row, table.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return [f"**{escape(table.title)}**", body, escape(" ".join((*table.caption, *table.notes)))]


def _row(row: Row) -> list[str]:
    heading = escape(row.heading)
    return [f"*{heading}*" if row.kind == "published" else heading, *map(_cell, row.cells)]


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return {"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[cell.mark]
