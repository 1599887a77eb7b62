"""One report, six forms: terminal, Markdown, LaTeX, HTML, CSV, JSON."""

from collections.abc import Callable
from importlib import import_module

from imbcil.reports.model import Report

TEXT_FORMATS = ("markdown", "latex", "html", "csv", "json")
FORMATS = ("terminal", *TEXT_FORMATS)


def as_text(report: Report, form: str) -> str:
    """The report as a text that ends with a newline; `form` is one of TEXT_FORMATS."""
    if form not in TEXT_FORMATS:
        raise ValueError(f"{form!r} is none of {', '.join(TEXT_FORMATS)}")
    draw: Callable[[Report], str] = import_module(f"imbcil.reports.render.{form}").draw
    return draw(report)
