"""Printed results as frozen records: what a paper, poster or figure says, and how sure we are of it."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.yaml_files import parse_yaml
from imbcil.reports.grouping import ColumnKey, Conditions

FOLDER = "imbcil.reports.published"
ORDERED = "-ordered"
RHO = ":rho="
Status = Literal["primary", "secondary", "recalled"]
Stand = Literal["full", "reduced", "beside", "apart"]  # of measured numbers to printed ones


class PublishedValue(Frozen):
    """One printed number, in percent."""

    table: str
    dataset: str
    protocol: str
    n_tasks: int
    memory: str
    method: str  # as printed
    metric: str  # as printed
    value: float
    source: str
    status: Status


class PublishedTable(Frozen):
    """What a printed table means in our terms; see `published/index.yaml`."""

    file: str
    title: str
    short: str = ""  # in rows, where a learner may be printed by several
    note: str = ""  # what has to be known of its values, for the caption
    recipes: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    preset: Literal["released", "sound"] = "released"
    imbalance: str
    metrics: Mapping[str, str]
    methods: Mapping[str, str]
    datasets: Mapping[str, str] = {}  # name as printed -> ours, where they differ
    order: str = ""  # of classes; empty: as the protocol's name says
    columns: Mapping[str, str] = {}  # protocol as printed -> our column, where they differ
    exact_memory: bool = False  # values without memory stand in no table with one
    only_with: tuple[str, ...] = ()  # recipes beside which its rows may stand; empty: any
    others: tuple[str, ...] = ()  # printed methods that have no learner here, shown by some layouts
    values: str = ""  # name of the table in the file; empty: this one's
    seeds: int | None = None  # runs behind a value; None: unknown

    def stand(self, conditions: Conditions) -> Stand:
        """What may be said of numbers made under these conditions: `full` judged, `reduced` undecided, `beside` their
        difference alone, `apart` nothing."""
        if conditions.preset != self.preset or conditions.vary != ("model",):
            return "apart"
        if conditions.recipe in self.recipes:
            return "reduced" if conditions.reduced else "full"
        if conditions.recipe in self.reduced:
            return "reduced"
        return "beside" if conditions.recipe in self.beside else "apart"


@dataclass(frozen=True)
class PublishedRow:
    """The printed row of one learner: values by column and metric (ours)."""

    name: str  # of the printed table
    table: PublishedTable
    printed_as: str
    method: str  # our learner
    status: Status
    source: str
    values: Mapping[tuple[ColumnKey, str], float]


def published_tables() -> dict[str, PublishedTable]:
    """Every printed table of `published/index.yaml`, by name."""
    text = files(FOLDER).joinpath("index.yaml").read_text(encoding="utf-8")
    return {
        name: validated(PublishedTable, body, f"index.yaml, {name}")
        for name, body in parse_yaml(text, "index.yaml").items()
    }


def published_values(file: str) -> list[PublishedValue]:
    """All rows of one CSV file of the folder. Raises BadInput that names file and line."""
    text = files(FOLDER).joinpath(file).read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return [
        validated(PublishedValue, _numbers(row, f"{file}, line {n}"), f"{file}, line {n}")
        for n, row in enumerate(rows, 2)
    ]


def published_rows(
    columns: tuple[ColumnKey, ...], memory: str, *, recipe: str = "", include_recalled: bool = False
) -> list[PublishedRow]:
    """Printed rows that have a value for at least one of the columns. Recalled values only on request.

    `recipe`: of the table in which they are to stand. A row without a learner here has an empty `method`.
    """
    found: list[PublishedRow] = []
    values: dict[str, list[PublishedValue]] = {}
    for name, table in published_tables().items():
        if recipe and table.only_with and recipe not in table.only_with:
            continue
        mine = values.setdefault(table.file, published_values(table.file))
        for printed_as, method in {**table.methods, **dict.fromkeys(table.others, "")}.items():
            for status in ("primary", "secondary", "recalled"):
                if status == "recalled" and not include_recalled:
                    continue
                matching = [
                    v
                    for v in mine
                    if (v.table, v.method, v.status) == (table.values or name, printed_as, status)
                ]
                cells = _cells(matching, table, columns, memory)
                if cells:
                    found.append(
                        PublishedRow(
                            name, table, printed_as, method, matching[0].status, matching[0].source, cells
                        )
                    )
    return found


def _cells(
    values: list[PublishedValue], table: PublishedTable, columns: tuple[ColumnKey, ...], memory: str
) -> dict[tuple[ColumnKey, str], float]:
    cells = {}
    for value in values:
        metric = table.metrics.get(value.metric)
        kept = ("all", "") if table.exact_memory else ("0", "")  # "0": the method keeps none anyway
        if metric is None or value.memory not in (memory, *kept):
            continue
        for column in columns:
            if _stands_in(value, table, column):
                cells[column, metric] = value.value
    return cells


def _stands_in(value: PublishedValue, table: PublishedTable, column: ColumnKey) -> bool:
    order = table.order or ("ordered" if value.protocol.endswith(ORDERED) else "shuffled")
    dataset, _, rho = value.dataset.partition(RHO)
    written = f"{value.protocol.removesuffix(ORDERED)}-{value.n_tasks}"
    return (
        not column.embedded
        and column.dataset == table.datasets.get(dataset, dataset)
        and column.column == table.columns.get(value.protocol, written)
        and column.order == order
        and column.imbalance == (f"exp rho {rho}" if rho else table.imbalance)
    )


def _numbers(row: Mapping[str, str], where: str) -> dict[str, object]:
    try:
        return {**row, "n_tasks": int(row["n_tasks"]), "value": float(row["value"])}
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{where}: n_tasks and value must be numbers.") from None
