"""Where a report goes: the terminal, standard output, or a file."""

from pathlib import Path

from rich.console import Console

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.base.files import atomic_write
from imbcil.reports.model import Report
from imbcil.reports.render import FORMATS, as_text
from imbcil.reports.render.terminal import TerminalReport

SUFFIXES = {
    ".md": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".csv": "csv",
    ".json": "json",
}
FILE_WIDTH = 160  # columns of a terminal table in a file


def chosen_format(given: str | None, out: Path | None) -> str:
    """`--format`, else what the file's ending says, else the terminal's."""
    if given is not None:
        return given
    return SUFFIXES.get(out.suffix.lower(), FORMATS[0]) if out else FORMATS[0]


def write_report(report: Report, form: str, out: Path | None) -> None:
    """Print a report, or write it to `out`. Raises BadInput when the file cannot be written."""
    if out is None and form == "terminal":
        Console(highlight=False).print(TerminalReport(report))
    else:
        write_text(_terminal_text(report) if form == "terminal" else as_text(report, form), out)


def write_text(text: str, out: Path | None) -> None:
    """Print a text as it is, or write it to `out`. Raises BadInput when the file cannot be written."""
    if out is None:
        Console(highlight=False).out(text, end="")
        return
    try:
        atomic_write(out, text)
    except RunStopped as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise BadInput(f"Cannot write --out {out}: {reason}.") from None


def _terminal_text(report: Report) -> str:
    console = Console(width=FILE_WIDTH, no_color=True, highlight=False)
    with console.capture() as caught:
        console.print(TerminalReport(report))
    return caught.get()
