"""Every learner minus one: paired over shared seeds, on one metric named beforehand, Holm-corrected over the table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.reports import captions
from imbcil.reports.collect import Collection, StoredRun
from imbcil.reports.differences import SIGNIFICANT, Difference, holm, paired_difference
from imbcil.reports.grouping import (
    ColumnKey,
    Conditions,
    RowKey,
    by_conditions,
    column_of,
    conditions_of,
    newest_per_seed,
    rows_of,
)
from imbcil.reports.headings import headings
from imbcil.reports.labels import legend, row_label, row_tags, short_names
from imbcil.reports.left_out import older_code_notes
from imbcil.reports.metric_names import unknown_metric
from imbcil.reports.model import Cell, Report, Row, Slot, Table
from imbcil.reports.plan import Request
from imbcil.reports.tables import column_order

Runs = Sequence[StoredRun]
Key = TypeVar("Key")


def build_comparison(collection: Collection, request: Request, reference: str) -> Report:
    """A table for each set of conditions under which `reference` and another row share a column.

    reference: a learner or, where it was run with several settings, the label of one of its rows, such as
    `rebll [exponent=0.0]`. Raises UnknownName for a reference or a metric that no finished run has, BadInput for two
    metrics.
    """
    if len(request.metrics) > 1:
        raise BadInput("--compare takes one --metric, named before looking; ask for others one by one.")
    layout = request.layout
    finished = [run for run in collection.finished if layout is None or layout.takes(run)]
    groups = by_conditions(finished, layout.conditions_of if layout else conditions_of)
    methods = sorted({run.info.method for run in finished})
    labels = {row_label(key, short_names()) for runs in groups.values() for key in rows_of(runs)}
    if reference not in labels.union(methods):
        raise UnknownName("learner among the finished runs", reference, methods)
    metrics = {metric for run in finished for metric in run.final}
    tables = []
    for conditions, runs in groups.items():
        metric = request.metrics_for(conditions.label_kind)[0]
        if request.metrics and metric not in metrics:
            raise unknown_metric(request.metrics[0], metrics)
        table = _table(conditions, runs, metric, reference)
        if table is not None:
            tables.append(table)
    notes = (
        () if tables else (f"Nothing can be compared with {reference}: no other learner shares a column.",)
    )
    return Report(tuple(tables), notes, collection.warnings)


def _table(conditions: Conditions, runs: Runs, metric: str, reference: str) -> Table | None:
    rows = {key: found for key, found in rows_of(runs).items() if not key.predictor}
    short = short_names()
    chosen = [key for key in rows if reference in (key.method, row_label(key, short))]
    bases = {key.origin: rows[key] for key in chosen}
    if len(chosen) > len(bases):
        settings = " or ".join(dict.fromkeys(f"{row_label(key, short)!r}" for key in chosen))
        raise BadInput(
            f"{reference} was run with several settings under {conditions.recipe}; a difference needs one of them: "
            f"--compare {settings}."
        )
    columns = sorted({column_of(run) for run in runs}, key=column_order)
    found = {
        (key, column): _difference(mine, bases.get(key.origin, ()), column, metric)
        for key, mine in rows.items()
        for column in columns
        if key not in chosen
    }
    kept = [column for column in columns if any(found.get((key, column)) for key in rows)]
    if not kept:
        return None
    corrected = corrected_differences(found)
    slots = tuple(Slot(column, metric) for column in kept)
    shown = tuple(
        _row(key, corrected, slots) for key in rows if any((key, column) in corrected for column in kept)
    )
    tested = sum(difference.p is not None for difference in corrected.values())
    return Table(
        title=captions.title(f"Minus {short.get(reference, reference)}", conditions),
        conditions=conditions,
        slots=slots,
        headings=headings(kept),
        rows=shown,
        caption=(
            captions.metric_sentence(metric),
            *difference_sentences(f"minus {reference}", tested),
            captions.conditions_sentence(conditions),
            *captions.data_sentences(kept, _digests(runs), conditions.label_kind),
            *legend({key.method for key in rows}, short),
        ),
        notes=tuple(older_code_notes(runs)),
    )


def difference_sentences(what: str, tested: int) -> list[str]:
    """How a table of paired differences was made."""
    differences = f"{tested} difference{'' if tested == 1 else 's'}"
    return [
        f"Each learner {what}, paired over the seeds that both ran: mean ± half-width of the 95 % interval by "
        "Student's t (number of seeds).",
        f"* p < {SIGNIFICANT} by the paired t-test, Holm-corrected over {differences}; "
        "one seed has neither interval nor test.",
    ]


def corrected_differences(found: Mapping[Key, Difference | None]) -> dict[Key, Difference]:
    """The differences that there are, with Holm's p over all of them."""
    there = {key: difference for key, difference in found.items() if difference is not None}
    tested = [key for key, difference in there.items() if difference.p is not None]
    values = holm([there[key].p or 0.0 for key in tested])
    return there | {key: replace(there[key], p_holm=p) for key, p in zip(tested, values, strict=True)}


def seed_values(runs: Runs, column: ColumnKey, metric: str) -> dict[int, float]:
    """Seed -> the metric of the newest run of that seed in a column."""
    newest = newest_per_seed([run for run in runs if column_of(run) == column])
    return {seed: run.final[metric] for seed, run in newest.items() if metric in run.final}


def _difference(runs: Runs, base: Runs, column: ColumnKey, metric: str) -> Difference | None:
    return paired_difference(seed_values(runs, column, metric), seed_values(base, column, metric))


def _row(key: RowKey, found: Mapping[tuple[RowKey, ColumnKey], Difference], slots: Sequence[Slot]) -> Row:
    cells = tuple(Cell(difference=found.get((key, slot.column))) for slot in slots)
    return Row(
        kind="difference",
        label=row_label(key, short_names()),
        method=key.method,
        cells=cells,
        tags=row_tags(key),
        settings=dict(key.variant),
        origin=key.origin,
    )


def _digests(runs: Runs) -> dict[ColumnKey, set[str]]:
    digests: dict[ColumnKey, set[str]] = {}
    for run in runs:
        digests.setdefault(column_of(run), set()).add(run.info.digest)
    return digests
