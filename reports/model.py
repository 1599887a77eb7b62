"""What a table is before it is drawn: plain frozen records that every renderer reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from imbcil.reports.aggregate import Summary
from imbcil.reports.differences import Difference
from imbcil.reports.grouping import ColumnKey, Conditions
from imbcil.reports.verdicts import Verdict, signed

Mark = Literal["", "best", "second"]
DAGGER = "†"


@dataclass(frozen=True)
class Cell:
    """One place of a row. Nothing measured and nothing printed: empty, never zero."""

    measured: Summary | None = None
    published: float | None = None
    verdict: Verdict | None = None
    images: bool = True  # whether the column's data are on this machine
    mark: Mark = ""
    overlaps: bool = False  # its interval and the best one's
    interval: bool = False  # show the half-width of the 95 % interval instead of the standard deviation
    difference: Difference | None = None  # from another learner
    said: str = ""  # of a summary row: its number in words
    number: float | None = None  # the same, unrounded
    count: int | None = None  # over how many pairs or cells

    @property
    def text(self) -> str:
        """`35.40 ± 0.31 (3)`: mean, standard deviation, seeds; or the printed value and where it stands."""
        if self.said:
            return self.said
        if self.difference is not None:
            return _difference_text(self.difference)
        if self.published is not None:
            said = (
                self.verdict if self.images else None
            )  # the measured cell above already says "no images here"
            return f"{self.published:.2f}" + (f" ({said})" if said else "")
        if self.measured is None:
            return "" if self.images else "no images here"
        width = self.measured.half_width if self.interval else self.measured.std
        spread = "" if width is None else f" ± {width:.2f}"
        return f"{self.measured.mean:.2f}{spread} ({self.measured.n}){' ≈' if self.overlaps else ''}"


def _difference_text(found: Difference) -> str:
    """`+1.20 ± 0.50 (3)*`."""
    spread = "" if found.half_width is None else f" ± {found.half_width:.2f}"
    return f"{signed(found.mean)}{spread} ({found.n}){'*' if found.significant else ''}"


@dataclass(frozen=True)
class Row:
    """A learner's measured row, the printed row that belongs to it, or what sums up the columns."""

    kind: Literal["measured", "published", "summary", "difference"]
    label: str
    method: str
    cells: tuple[Cell, ...]  # one for each slot
    predictor: str = ""
    tags: tuple[str, ...] = ()  # "upper bound", "recon", "incomplete", ...
    status: str = ""  # of a published row: primary, secondary, recalled
    source: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)  # in which it differs from its neighbours
    origin: str = ""  # of a measured row: who made it; empty: this store

    @property
    def heading(self) -> str:
        """The row's first cell: label and tags."""
        tags = f" ({', '.join(self.tags)})" if self.tags else ""
        return f"{self.label}{tags}"


@dataclass(frozen=True)
class Slot:
    """One column of numbers: a scenario family and a metric."""

    column: ColumnKey
    metric: str

    @property
    def metric_name(self) -> str:
        return self.metric.removeprefix("final/")


@dataclass(frozen=True)
class Table:
    """Rows over slots; all numbers share `conditions`."""

    title: str
    conditions: Conditions
    slots: tuple[Slot, ...]
    headings: Mapping[ColumnKey, tuple[str, ...]]  # lines over a column: protocol, dataset, what is special
    rows: tuple[Row, ...]
    caption: tuple[str, ...]  # sentences
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[ColumnKey, ...]:
        return tuple(dict.fromkeys(slot.column for slot in self.slots))


@dataclass(frozen=True)
class Report:
    """All tables of one request, and what must be said below them."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # folders that could not be read; for stderr
