"""Tables for LaTeX: `booktabs`, text escaped, nothing but ASCII of our own."""

from imbcil.reports.model import Cell, Report, Row, Table

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row may not begin with an optional argument
    "]": "{]}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "†": r"$\dagger$",
    '"': "''",
}


def draw(report: Report) -> str:
    """Every table as a float; notes as comments."""
    parts = ["% needs \\usepackage{booktabs}", *(_table(table) for table in report.tables)]
    notes = [f"% {' '.join(note.split())}" for note in report.notes]
    return "\n".join([*parts, *notes]) + "\n"


def escape(text: str) -> str:
    """User text that LaTeX shows as it is; line breaks become blanks."""
    return "".join(ESCAPES.get(sign, sign) for sign in " ".join(text.split()))


def _table(table: Table) -> str:
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape(table.title)}. {escape(' '.join((*table.caption, *table.notes)))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.slots)}}}",
        r"\toprule",
        *_head(table),
        r"\midrule",
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _head(table: Table) -> list[str]:
    spans = [(column, sum(slot.column == column for slot in table.slots)) for column in table.columns]
    depth = max((len(lines) for lines in table.headings.values()), default=0)
    rows = []
    for level in range(depth):
        cells = []
        for column, wide in spans:
            lines = table.headings[column]
            text = escape(lines[level]) if level < len(lines) else ""
            cells.append(rf"\multicolumn{{{wide}}}{{c}}{{{text}}}")
        rows.append(" & ".join(["", *cells]) + r" \\")
    rows.append(" & ".join(["learner", *(escape(slot.metric_name) for slot in table.slots)]) + r" \\")
    return rows


def _body(table: Table) -> list[str]:
    """All rows; a rule before those that sum up the columns."""
    lines: list[str] = []
    for row in table.rows:
        if row.kind == "summary" and r"\midrule" not in lines:
            lines.append(r"\midrule")
        lines.append(_row(row))
    return lines


def _row(row: Row) -> str:
    heading = escape(row.heading)
    if row.kind == "published":
        heading = rf"\quad\textit{{{heading}}}"
    return " & ".join([heading, *map(_cell, row.cells)]) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[cell.mark]
