"""What a table should show: the reader's choices, and layouts by name (`layouts/*.yaml`)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Literal

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import UnknownName
from imbcil.harness.base.yaml_files import parse_yaml
from imbcil.reports.collect import StoredRun
from imbcil.reports.grouping import ColumnKey, Conditions, conditions_of
from imbcil.reports.metric_names import full_name

FOLDER = "imbcil.reports.layouts"
NO_LAYOUTS = ("labels.yaml",)

SINGLE_LABEL = ("final/avg_acc_task_mean", "final/avg_acc_total")
MULTI_LABEL = ("final/avg_map", "final/last_map")


class PlannedTable(Frozen):
    """A table that is shown even where nothing was run for it."""

    recipe: str
    memory: str
    preset: str = "sound"


class Layout(Frozen):
    """A table whose rows and columns are known before anything was run."""

    title: str
    recipes: tuple[str, ...] = ()  # whose runs belong here; empty: any
    presets: tuple[str, ...] = ("released", "sound")
    memory: str | None = None  # None: any, each with a table of its own
    order: str = "shuffled"
    imbalances: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    columns: tuple[Mapping[str, tuple[str, ...]], ...]  # dataset -> its columns, in order
    methods: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]] = {}  # recipe -> the rows that it has; others have all
    alike: Mapping[str, str] = {}  # recipe -> the one whose table it shares: the same rules for other images
    tables: tuple[PlannedTable, ...]
    label_kind: Literal["single", "multi"] = "single"
    printed_rows: bool = (
        False  # rows that papers print of learners that nobody has here; no empty rows of ours
    )

    def methods_of(self, recipe: str) -> tuple[str, ...]:
        """The rows of one recipe's table."""
        return self.only.get(recipe, self.methods)

    def planned(self) -> list[ColumnKey]:
        """The layout's columns before anything was run: without a family."""
        return [
            ColumnKey(column, dataset, self.order, imbalance)
            for group in self.columns
            for dataset, columns in group.items()
            for column in columns
            for imbalance in self.imbalances
        ]

    def conditions(self, found: Collection[Conditions]) -> list[Conditions]:
        """Those of the planned tables that the found ones leave out; of tables alike in all else one is enough."""
        there = {(each.recipe, each.memory, each.preset) for each in found}
        if there and not self.printed_rows:
            return []
        return [
            Conditions(table.recipe, table.preset, table.memory, "any precision", ("model",), self.label_kind)
            for table in self.tables
            if (table.recipe, table.memory, table.preset) not in there
        ]

    def conditions_of(self, run: StoredRun) -> Conditions:
        """Those of the table in which the run stands."""
        found = conditions_of(run)
        return replace(found, recipe=self.alike.get(found.recipe, found.recipe))

    def takes(self, run: StoredRun) -> bool:
        """Whether a run belongs into this layout."""
        info = run.info
        return (
            info.method in self.methods_of(info.recipe)
            and (not self.recipes or info.recipe in (*self.recipes, *self.alike))
            and info.preset in self.presets
            and self.memory in (None, info.memory)
            and any(
                (key.column, key.dataset, key.order, key.imbalance)
                == (info.column, info.dataset, info.order, info.imbalance)
                for key in self.planned()
            )
        )


class GainLayout(Frozen):
    """A grid of learners and plug-ins, of which the gains over the bare learner are shown."""

    title: str
    gains: Literal[True]
    metric: str  # the one that is tested
    split: tuple[str, ...] = ()  # others, shown without a test
    recipe: str  # with `preset` and `memory`: of the table that is shown where nothing was run
    preset: str
    memory: str
    imbalance: str
    columns: tuple[Mapping[str, tuple[str, ...]], ...]
    learners: tuple[str, ...]
    plugins: tuple[str, ...]

    def planned(self) -> list[ColumnKey]:
        return [
            ColumnKey(column, dataset, "shuffled", self.imbalance)
            for group in self.columns
            for dataset, columns in group.items()
            for column in columns
        ]

    def conditions(self) -> Conditions:
        return Conditions(self.recipe, self.preset, self.memory, "any precision", ("model",))

    def takes(self, run: StoredRun) -> bool:
        """Whether a run is one of the grid's, bare or with one plug-in, on any data of one label."""
        learner, *plugins = run.info.method.split("+")
        known = not plugins or (len(plugins) == 1 and plugins[0] in self.plugins)
        return run.info.label_kind == "single" and learner in self.learners and known


@dataclass(frozen=True)
class Request:
    """What a reader asks of a table."""

    metrics: tuple[str, ...] = ()  # empty: the layout's, else both averages
    include_recalled: bool = False
    interval: bool = False  # half-widths of 95 % intervals instead of standard deviations
    layout: Layout | None = None
    images_at_hand: Callable[[str], bool] = lambda dataset: True  # by dataset name

    def metrics_for(self, label_kind: str) -> tuple[str, ...]:
        if self.metrics:
            return tuple(full_name(metric) for metric in self.metrics)
        if self.layout and self.layout.metrics:
            return self.layout.metrics
        return MULTI_LABEL if label_kind == "multi" else SINGLE_LABEL


def layout_names() -> list[str]:
    names = (item.name for item in files(FOLDER).iterdir())
    return sorted(
        name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name not in NO_LAYOUTS
    )


def load_layout(name: str) -> Layout:
    """A layout by name. Raises UnknownName with the nearest known ones."""
    return validated(Layout, _layout_file(name), f"{name}.yaml")


def load_gain_layout(name: str) -> GainLayout | None:
    """A layout of gains by name; None where the name is an ordinary layout's. Raises UnknownName."""
    content = _layout_file(name)
    return validated(GainLayout, content, f"{name}.yaml") if "gains" in content else None


def _layout_file(name: str) -> Mapping[str, Any]:
    if name not in layout_names():
        raise UnknownName("table layout", name, layout_names())
    return parse_yaml(files(FOLDER).joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")
