"""Finished runs that a table leaves out, and why."""

from collections.abc import Sequence

from imbcil.reports.collect import StoredRun
from imbcil.reports.grouping import column_of, rows_of, seeds_of_older_code
from imbcil.reports.labels import row_label, short_names


def replaced_notes(runs: Sequence[StoredRun]) -> list[str]:
    """How many runs have a newer one of the same cell and seed."""
    cells: dict[tuple[object, ...], int] = {}
    for key, found in rows_of(runs).items():
        if not key.predictor:
            for run in found:
                place = (key, column_of(run), run.info.seed)
                cells[place] = cells.get(place, 0) + 1
    older = sum(times - 1 for times in cells.values())
    if not older:
        return []
    return [
        f"{older} older run{'s' if older > 1 else ''} of the same cell and seed left out: the newest counts."
    ]


def older_code_notes(runs: Sequence[StoredRun]) -> list[str]:
    """Which seeds a cell lacks because its learner's code has changed since."""
    said = []
    for key, found in rows_of(runs).items():
        for column in dict.fromkeys(column_of(run) for run in found if not key.predictor):
            here = [run for run in found if column_of(run) == column]
            if seeds := sorted(seeds_of_older_code(here)):
                said.append(
                    f"{row_label(key, short_names())}, {column.column} of {column.dataset}: seed{'s' if len(seeds) > 1 else ''} "
                    f"{', '.join(map(str, seeds))} left out, trained by an older version of its code; the same command "
                    "with them trains them again."
                )
    return said
