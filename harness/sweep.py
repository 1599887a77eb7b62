"""Sweeps: a suite's rows (methods with settings) times its columns (protocols), one request a cell; `harness/sweeps` runs them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, ImbcilError, NotDefined, UnknownName
from imbcil.harness.base.registry import parse_method, short_name
from imbcil.harness.base.yaml_files import read_yaml
from imbcil.harness.request import RunRequest
from imbcil.protocols.suites import suite_names, suite_path

__all__ = ["Cell", "Suite", "cells_of", "defined_cells", "load_suite", "suite_names"]


class Row(Frozen):
    """A method and the settings in which it differs from the suite's others."""

    method: str
    set: dict[str, Any] = {}


class Column(Frozen):
    """A protocol applied to a dataset; keys as the flags of `run`."""

    protocol: str
    dataset: str
    n_tasks: int | None = Field(default=None, ge=1)
    base: int | None = Field(default=None, ge=0)
    step: int | None = Field(default=None, ge=1)
    sizes: tuple[int, ...] | None = None
    order: str | None = None
    rho: float | None = Field(default=None, ge=1)


class Suite(Frozen):
    """A grid of runs that fills a table."""

    summary: str = ""
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)
    recipe: str | None = None
    preset: str | None = None
    memory: str | None = None
    seeds: tuple[int, ...] = (0,)

    @field_validator("memory", mode="before")
    @classmethod
    def _as_meant(cls, value: object) -> object:
        """YAML reads a total of exemplars as a number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Cell(Frozen):
    """One learner in one column, with all its seeds."""

    row: Row
    column: Column
    request: RunRequest
    not_defined: str = ""  # why the contract does not let the learner and its plug-ins be combined

    @property
    def name(self) -> str:
        """Its learner, with the settings in which the row differs."""
        changes = ", ".join(f"{path}={value}" for path, value in self.row.set.items())
        return f"{self.row.method} [{changes}]" if changes else self.row.method

    def as_json(self) -> dict[str, Any]:
        """The cell as `sweep --dry-run --json` prints it."""
        column = self.column.model_dump(mode="json", exclude_none=True)
        shared = self.request.model_dump(mode="json", include={"seeds", "recipe", "preset", "memory"})
        reason = {"not_defined": self.not_defined} if self.not_defined else {}
        return {"learner": self.row.method, **column, "set": dict(self.row.set), **shared, **reason}


def load_suite(name: str) -> Suite:
    """A built-in suite by name or the user's own YAML by path.

    Raises BadInput that names file and line; an unknown learner comes with its suggestion, before anything runs.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) or "/" in name else suite_path(name)
    if path is None:
        raise UnknownName("suite", name, suite_names())
    suite = validated(Suite, read_yaml(path), str(path))
    for row in suite.rows:
        try:
            parse_method(row.method)
        except ImbcilError as error:
            raise BadInput(f"{_place(path, row.method)}: {error}") from None
    return suite


def _place(path: Path, text: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    numbers = [number for number, line in enumerate(lines, start=1) if text in line]
    return f"{path}, line {numbers[0]}" if numbers else str(path)


def cells_of(suite: Suite, given: dict[str, Any], dataset: str | None = None) -> list[Cell]:
    """One cell per row and column. `given`: flags that win over the suite; `dataset` keeps the columns on it.

    A setting of one learner or plug-in reaches the rows that have it. Raises BadInput for one that no row has.
    """
    columns = [column for column in suite.columns if dataset in (None, column.dataset)]
    if not columns:
        known = sorted({column.dataset for column in suite.columns})
        raise UnknownName("dataset of this suite", str(dataset), known)
    shared: dict[str, Any] = {
        "recipe": suite.recipe,
        "preset": suite.preset,
        "memory": suite.memory,
        "seeds": suite.seeds,
    }
    shared |= {name: value for name, value in given.items() if value is not None}
    everywhere = _names([row.method for row in suite.rows])
    cells = []
    for column in columns:
        for row in suite.rows:
            elsewhere = everywhere - _names([row.method])
            reaching = {
                path: value
                for path, value in shared.get("set", {}).items()
                if path.partition(".")[0] not in elsewhere
            }
            settings = {**row.set, **reaching}
            content = {
                **shared,
                **column.model_dump(exclude_none=True),
                "method": (row.method,),
                "set": settings,
            }
            request = validated(RunRequest, content, "sweep")
            reason = why_not_defined(request)
            cells.append(Cell(row=row, column=column, request=request, not_defined=reason))
    return cells


def _names(methods: Sequence[str]) -> set[str]:
    """Names of the learners and plug-ins in `methods`, as `--set NAME.key` has them."""
    found = [parse_method(text) for text in methods]
    return {short_name(name) for method in found for name in (method.learner, *method.plugins)}


def why_not_defined(request: RunRequest) -> str:
    """The sentence by which the contract refuses a learner with its plug-ins; empty where it does not.

    Everything else that is wrong with a request is left to its planning.
    """
    if not any("+" in method for method in request.method):
        return ""
    from imbcil.harness.resolve import resolve_plans
    from imbcil.harness.scenario_request import resolve_recipe

    try:
        resolve_plans(request, resolve_recipe(request)[0])
    except NotDefined as refusal:
        return str(refusal)
    except ImbcilError:
        return ""
    return ""


def defined_cells(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Cell]:
    """The cells that can be run; each other one is said with its reason. Raises BadInput where none is left."""
    for cell in cells:
        if cell.not_defined:
            say(f"not defined: {cell.row.method} in {_place_of(cell.column)}: {cell.not_defined}")
    left = [cell for cell in cells if not cell.not_defined]
    if not left:
        raise BadInput(f"No cell of this suite can be run; the first one: {cells[0].not_defined}")
    return left


def _place_of(column: Column) -> str:
    profile = f" rho {column.rho:g}" if column.rho else ""
    return f"{column.protocol}{f'-{column.n_tasks}' if column.n_tasks else ''} on {column.dataset}{profile}"
