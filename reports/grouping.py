"""Which runs may share a table, a column, a row and a cell: the rules of comparability in one place."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from imbcil.reports.collect import StoredRun


@dataclass(frozen=True)
class Conditions:
    """What all numbers of one table share; runs that differ here never stand in one table."""

    recipe: str
    preset: str
    memory: str
    precision: str
    vary: tuple[str, ...]
    label_kind: str = "single"
    reduced: bool = False
    overrides: tuple[tuple[str, str], ...] = ()  # of the recipe, not of learners: path -> JSON


@dataclass(frozen=True)
class ColumnKey:
    """One scenario family; runs of different families never share a column."""

    column: str  # "lfs-10"
    dataset: str
    order: str
    imbalance: str
    family: str = ""  # empty: nothing was run yet
    embedded: bool = False
    switches: str = ""  # what difficult objects and crowds count as, with several labels an image


@dataclass(frozen=True)
class RowKey:
    """One learner, one predictor, and the settings in which it differs from its neighbours."""

    method: str
    predictor: str = ""  # empty: the primary one
    variant: tuple[tuple[str, str], ...] = ()  # setting -> JSON
    upper_bound: bool = False
    oracle_memory: bool = False
    reconstruction: bool = False
    leaky: bool = False  # weights that may know the answers
    unranked: bool = False  # a predictor that costs more than one network
    origin: str = ""  # who measured it; empty: this store


def conditions_of(run: StoredRun) -> Conditions:
    info = run.info
    return Conditions(
        recipe=info.recipe,
        preset=info.preset,
        memory=info.memory,
        precision=info.precision,
        vary=info.vary,
        label_kind=info.label_kind,
        reduced=info.reduced,
        overrides=tuple((key, value) for key, value in overrides_of(run) if not _is_learners(key, run)),
    )


def column_of(run: StoredRun) -> ColumnKey:
    info = run.info
    return ColumnKey(
        info.column, info.dataset, info.order, info.imbalance, info.family, info.embedded, info.switches
    )


def overrides_of(run: StoredRun) -> tuple[tuple[str, str], ...]:
    """What was changed against recipe and preset, sorted, values as JSON."""
    return tuple(sorted((key, _text(value)) for key, value in run.overrides.items()))


def by_conditions(
    runs: Iterable[StoredRun], find: Callable[[StoredRun], Conditions] = conditions_of
) -> dict[Conditions, list[StoredRun]]:
    """Runs that may stand in one table: real data and recipes to the letter first, then by name."""
    groups: dict[Conditions, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(find(run), []).append(run)
    order = sorted(
        groups,
        key=lambda c: (all(r.info.embedded for r in groups[c]), c.reduced, bool(c.overrides), _sort_key(c)),
    )
    return {conditions: groups[conditions] for conditions in order}


def newest_per_seed(runs: Iterable[StoredRun]) -> dict[int, StoredRun]:
    """One run for each seed of a cell: the one created last (an older one used another device, say).

    Seeds that only an older version of the learner's or a plug-in's code has trained are left out: a mean over two
    versions is the number of neither.
    """
    ordered = sorted(runs, key=lambda run: (run.info.created_ms, run.info.attempt))
    current = next((run.info.code for run in reversed(ordered) if run.info.code), {})
    return {run.info.seed: run for run in ordered if run.info.code in ({}, current)}  # {}: not written down


def seeds_of_older_code(runs: Sequence[StoredRun]) -> set[int]:
    """Seeds of a cell that only older code has trained: those that `newest_per_seed` leaves out."""
    return {run.info.seed for run in runs} - newest_per_seed(runs).keys()


def rows_of(runs: Sequence[StoredRun]) -> dict[RowKey, list[StoredRun]]:
    """Rows of one table, upper bounds last; further predictors follow the row of the primary one."""
    rows: dict[RowKey, list[StoredRun]] = {}
    for method in sorted({run.info.method for run in runs}):
        mine = [run for run in runs if run.info.method == method]
        telling = _telling_settings(mine)
        for run in mine:
            settings = _leaves(run.info.settings)
            variant = tuple((key, _text(settings.get(key))) for key in telling)
            for predictor in ("", *other_predictors(run)):
                rows.setdefault(_row_key(run, predictor, variant), []).append(run)
    order = sorted(
        rows, key=lambda key: (key.upper_bound, key.method, key.origin, key.variant, key.predictor)
    )
    return {key: rows[key] for key in order}


def other_predictors(run: StoredRun) -> list[str]:
    """Predictors beside the primary one, as the run's metrics name them (`final/fc/avg_acc_total`)."""
    parts = [metric.split("/") for metric in run.final]
    return list(dict.fromkeys(path[1] for path in parts if len(path) == 3))


def _row_key(run: StoredRun, predictor: str, variant: tuple[tuple[str, str], ...]) -> RowKey:
    info = run.info
    return RowKey(
        method=info.method,
        predictor=predictor,
        variant=variant,
        upper_bound=info.upper_bound,
        oracle_memory=info.oracle_memory,
        reconstruction=info.reconstruction,
        leaky=bool(info.leaky_weights),
        unranked=(predictor or _primary(run)) in info.unranked_predictors,
        origin=run.origin,
    )


def _primary(run: StoredRun) -> str:
    return run.info.predictors[0] if run.info.predictors else ""


def _telling_settings(runs: Sequence[StoredRun]) -> list[str]:
    """Settings in which runs of one method differ inside some column; elsewhere the recipe chose them."""
    columns: dict[ColumnKey, list[Mapping[str, object]]] = {}
    for run in runs:
        columns.setdefault(column_of(run), []).append(_leaves(run.info.settings))
    telling = set()
    for settings in columns.values():
        for key in {key for each in settings for key in each}:
            if len({_text(each.get(key)) for each in settings}) > 1:
                telling.add(key)
    return sorted(telling)


def _leaves(settings: Mapping[str, object], path: str = "") -> dict[str, object]:
    """Nested settings by dotted path, so that a row names what differs and no more."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _leaves(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}"] = value
    return flat


def _is_learners(key: str, run: StoredRun) -> bool:
    return key.split(".", 1)[0] in {run.info.learner, *run.info.plugins}


def _sort_key(conditions: Conditions) -> tuple[str, ...]:
    return tuple(str(value) for value in vars(conditions).values())


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
