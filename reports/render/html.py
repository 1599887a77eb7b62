"""Tables as one HTML page without scripts or outside files; follows the reader's light or dark setting."""

from html import escape

from imbcil.reports.model import Cell, Report, Row, Table

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; }
figure { margin: 0 0 3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; font-weight: normal; }
th[scope=row], thead th:first-child { text-align: left; }
thead th[colspan] { text-align: center; border-bottom: 1px solid #8886; }
thead tr:last-child th { border-bottom: 2px solid #8889; font-size: .85em; }
tbody tr.measured { border-top: 1px solid #8884; }
tr.published th, tr.published td { font-style: italic; opacity: .8; padding-top: 0; }
tr.published th { padding-left: 1.8rem; }
tbody tr.summary { border-top: 1px solid #8889; }
h2 { font-size: 1.15rem; }
figcaption, .notes { font-size: .85em; max-width: 60rem; margin-top: .8rem; }
small { display: block; }
"""


def draw(report: Report) -> str:
    """A whole page."""
    tables = "\n".join(map(_table, report.tables))
    notes = "".join(f'<p class="notes">{escape(note)}</p>\n' for note in report.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>imbcil-bench: results</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{tables}\n{notes}</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    caption = " ".join(map(escape, (*table.caption, *table.notes)))
    rows = "\n".join(map(_row, table.rows))
    return (
        f'<figure>\n<h2>{escape(table.title)}</h2>\n<div class="scroll"><table>\n<thead>\n{_head(table)}\n</thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>\n<figcaption>{caption}</figcaption>\n</figure>"
    )


def _head(table: Table) -> str:
    over = []
    for column in table.columns:
        wide = sum(slot.column == column for slot in table.slots)
        first, *others = map(escape, table.headings[column])
        over.append(
            f'<th colspan="{wide}">{first}{"".join(f"<small>{line}</small>" for line in others)}</th>'
        )
    names = "".join(f'<th scope="col">{escape(slot.metric_name)}</th>' for slot in table.slots)
    return f'<tr><th rowspan="2">learner</th>{"".join(over)}</tr>\n<tr>{names}</tr>'


def _row(row: Row) -> str:
    cells = "".join(map(_cell, row.cells))
    return f'<tr class="{row.kind}"><th scope="row">{escape(row.heading)}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return (
        "<td>"
        + {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>", "": text}[cell.mark]
        + "</td>"
    )
