"""Tables for a terminal of any width: what does not fit side by side is stacked."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from imbcil.reports.model import Cell, Report, Row, Table

STYLES = {"best": "bold", "second": "underline", "": ""}
PADDING = 3  # two blanks and a rule between columns


class TerminalReport:
    """A rich renderable. User text goes in as Text, so that `[` is never read as markup."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        said: set[str] = set()
        for table in self.report.tables:
            yield Text(table.title, style="bold")
            for places in _chunks(table, options.max_width):
                yield _draw(table, places)
            new = [sentence for sentence in (*table.caption, *table.notes) if sentence not in said]
            said.update(new)  # what holds for several tables is said once
            yield Text(" ".join(new), style="dim")
            yield Text("")
        for note in self.report.notes:
            yield Text(note)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(20, options.max_width)


def _chunks(table: Table, width: int) -> Iterator[list[int]]:
    """Places of the slots that fit beside the rows' headings; a scenario's slots stay together if they can."""
    room = width - _heading_width(table) - PADDING
    chunk: list[int] = []
    used = 0
    for places, wide in _inseparable(table, room):
        if chunk and used + wide > room:
            yield chunk
            chunk, used = [], 0
        chunk, used = chunk + places, used + wide
    if chunk:
        yield chunk


def _inseparable(table: Table, room: int) -> Iterator[tuple[list[int], int]]:
    """Places that are not to be parted, and their width: those of one scenario, or one by one in little room."""
    for column in table.columns:
        places = [place for place, slot in enumerate(table.slots) if slot.column == column]
        widths = [_slot_width(table, place) + PADDING for place in places]
        if sum(widths) <= room:
            yield places, sum(widths)
        else:
            yield from (([place], wide) for place, wide in zip(places, widths, strict=True))


def _heading_width(table: Table) -> int:
    return max((cell_len(_first(row)) for row in table.rows), default=0)


def _slot_width(table: Table, place: int) -> int:
    slot = table.slots[place]
    texts = [slot.metric_name, *table.headings[slot.column], *(row.cells[place].text for row in table.rows)]
    return max(map(cell_len, texts))


def _draw(table: Table, places: Sequence[int]) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    drawn.add_column(Text("learner"), overflow="fold", no_wrap=False)
    for place in places:
        slot = table.slots[place]
        lines = [*table.headings[slot.column], slot.metric_name]
        drawn.add_column(
            Text("\n".join(lines), justify="right"), justify="right", vertical="bottom", no_wrap=True
        )
    for row in table.rows:
        if row.kind != "measured" and not any(row.cells[place].text for place in places):
            continue
        style = {"published": "italic", "summary": "cyan"}.get(row.kind, "")
        cells = [_text(row.cells[place], style) for place in places]
        drawn.add_row(Text(_first(row), style=style), *cells)
    return drawn


def _first(row: Row) -> str:
    return f"  {row.heading}" if row.kind == "published" else row.heading


def _text(cell: Cell, style: str) -> Text:
    return Text(cell.text, style=f"{style} {STYLES[cell.mark]}".strip())
