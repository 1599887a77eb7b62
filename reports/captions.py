"""What stands under a table: which metric, which average, under which conditions, from which data."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from imbcil.reports.agreement import SMALLEST_GAP
from imbcil.reports.grouping import ColumnKey, Conditions
from imbcil.reports.model import DAGGER, Row
from imbcil.reports.printed import PublishedRow, Stand
from imbcil.reports.verdicts import FEWEST_SEEDS, LARGEST_DIFFERENCE, WIDEST_INTERVAL

MEASURES = {
    "acc_total": "accuracy (%) over all test images of the classes seen",
    "acc_task_mean": "accuracy (%) with all phases seen weighted equally",
    "acc_new": "accuracy (%) on the newest phase's classes",
    "acc_old": "accuracy (%) on the earlier phases' classes",
    "acc_many": "accuracy (%) on classes with more than 100 training images",
    "acc_medium": "accuracy (%) on classes with 20 to 100 training images",
    "acc_few": "accuracy (%) on classes with fewer than 20 training images",
    "forgetting": "best earlier accuracy minus the accuracy now, in points, mean over classes of earlier phases",
    "forgetting_task_mean": "best earlier accuracy minus the accuracy now, in points, earlier phases weighted equally",
    "forgetting_count_corr": "Spearman correlation of a class's forgetting with its training images",
    "cf1_mean_t0.8": "CF1 (%): mean over classes of each class's F1, labels above 0.8 of the sigmoid",
    "cf1_mean_t0.5": "CF1 (%): mean over classes of each class's F1, labels above 0.5 of the sigmoid",
    "cf1_harmonic_t0.8": "CF1 (%): harmonic mean of the classes' mean precision and mean recall, labels above 0.8",
    "cf1_harmonic_t0.5": "CF1 (%): harmonic mean of the classes' mean precision and mean recall, labels above 0.5",
    "of1_t0.8": "OF1 (%): F1 over all classes pooled, labels above 0.8 of the sigmoid",
    "of1_t0.5": "OF1 (%): F1 over all classes pooled, labels above 0.5 of the sigmoid",
    "map": "mean average precision (%) over the classes seen so far",
    "map_legacy": "mean average precision (%), classes without a positive test image counted as 0",
    "map_chance": "mean average precision (%) that is to be expected of scores by chance: the mean share of positives",
    "map_base": "mean average precision (%) of the first phase's classes on their images",
    "map_new": "mean average precision (%) of the newest phase's classes on their images",
    "map_head": "mean average precision (%) of classes with 100 training positives or more",
    "map_medium": "mean average precision (%) of classes with 20 to 99 training positives",
    "map_tail": "mean average precision (%) of classes with fewer than 20 training positives",
}
VARIED = {
    "model": "the model (initialisation and batches)",
    "order": "the class order",
    "sample": "which images the long tail keeps",
}
SHORT = 8  # hex digits of a digest that people compare by eye


def metric_sentence(metric: str) -> str:
    """`avg_acc_total: mean over all phases, the first included, of ...`."""
    name = metric.removeprefix("final/")
    when, _, measure = name.rpartition("/")[2].partition("_")
    what = MEASURES.get(measure, measure)
    if when == "avg":
        return f"{name}: {what}; mean over all phases, the first included."
    return f"{name}: {what}; after the last phase." if when == "last" else f"{name}."


def conditions_sentence(conditions: Conditions) -> str:
    changed = "".join(f", {path} = {value}" for path, value in conditions.overrides)
    varied = " and ".join(VARIED.get(axis, axis) for axis in conditions.vary)
    return (
        f"Recipe {conditions.recipe}{' (reduced)' if conditions.reduced else ''}{changed}; preset {conditions.preset}; memory {conditions.memory}; "
        f"precision {conditions.precision}; seeds vary {varied}."
    )


def title(name: str, conditions: Conditions) -> str:
    """A table's title: all in which two tables of one report can differ at a glance."""
    return (
        f"{name}: recipe {recipe_name(conditions)}, preset {conditions.preset}, "
        f"memory {conditions.memory}, {conditions.precision}"
    )


def recipe_name(conditions: Conditions) -> str:
    """The recipe, called reduced or changed wherever it is named."""
    marks = [
        word for word, holds in (("reduced", conditions.reduced), ("changed", conditions.overrides)) if holds
    ]
    return f"{conditions.recipe} ({', '.join(marks)})" if marks else conditions.recipe


def recipe_sentences(conditions: Conditions, found: Iterable[tuple[str, str]]) -> list[str]:
    """Which datasets' columns (recipe, dataset) were trained with another recipe than the table's own."""
    others: dict[str, list[str]] = {}
    for recipe, dataset in sorted(found):
        if recipe != conditions.recipe:
            others.setdefault(recipe, []).append(dataset)
    return [f"Recipe of {', '.join(datasets)}: {recipe}." for recipe, datasets in others.items()]


def data_sentences(
    columns: Sequence[ColumnKey], digests: Mapping[ColumnKey, Iterable[str]], label_kind: str = "single"
) -> list[str]:
    """Order, profile and digests of each dataset's columns, and which data are embedded."""
    plain = "as they come" if label_kind == "multi" else "balanced"
    alike: dict[str, list[str]] = {}
    for column in columns:
        imbalance = plain if column.imbalance == "none" else column.imbalance
        identity = _identity(column, sorted(set(digests.get(column, ()))))
        profile = f"{imbalance}, {column.switches}" if column.switches else imbalance
        alike.setdefault(f"{column.dataset}: {column.order} classes, {profile}", []).extend(identity)
    said = [f"{text}{'; ' if found else ''}{', '.join(found)}." for text, found in alike.items()]
    for dataset in sorted({column.dataset for column in columns if column.embedded}):
        said.append(
            f"{dataset} is embedded data, rendered by this program; no paper's number compares with it."
        )
    return said


def _identity(column: ColumnKey, found: Sequence[str]) -> list[str]:
    if len(found) > 1:
        return [f"{column.column} family {column.family[:SHORT]} of {len(found)} scenarios"]
    return [f"{column.column} digest {digest[:SHORT]}" for digest in found]


def marks_sentence(rows: Sequence[Row]) -> str:
    """What the numbers and their marks mean, and how far the marks can be trusted."""
    cells = [cell for row in rows for cell in row.cells]
    spread = (
        "half-width of the 95 % interval (Student's t)"
        if any(cell.interval for cell in cells)
        else "standard deviation"
    )
    said = f"Mean ± {spread} over seeds (their number)"
    if not any(cell.mark for cell in cells):
        return f"{said}."
    said += "; best bold, second underlined, among complete rows that may be ranked."
    if any(cell.overlaps for cell in cells):
        said += " ≈: its 95 % interval (Student's t) overlaps that of the best."
    if any(cell.mark and cell.measured and cell.measured.half_width is None for cell in cells):
        said += " One seed has no interval: whether its mark would last is unknown."
    return said


def _by(row: PublishedRow) -> str:
    return f"Published by {row.table.short}" if row.table.short else "Published"


def published_sentences(
    shown: Sequence[PublishedRow], rows: Sequence[Row], stands: Collection[Stand]
) -> list[str]:
    """Where printed values come from, how verdicts are found, and how many of them miss by chance."""
    said = []
    for row in {(row.name, row.status): row for row in shown}.values():
        seeds = "n unknown" if row.table.seeds is None else f"n = {row.table.seeds}"
        mark = DAGGER if row.status == "recalled" else ""
        compared = ", ".join(sorted({metric.removeprefix("final/") for _, metric in row.values}))
        note = f"; {row.table.note}" if row.table.note else ""
        said.append(
            f"{_by(row)}{mark}: {row.table.title} ({row.status}, {seeds}), set beside {compared}{note}."
        )
    verdicts = [cell.verdict for row in rows for cell in row.cells if cell.verdict]
    if not set(stands) - {"apart"}:
        return [*said, "They are not compared: recipe, preset or varied axis is not the published one."]
    if not verdicts:
        return said
    if any(verdict.judgement == "not judged" for verdict in verdicts):
        said.append(
            "Not judged: measured minus published where recipe or data are not quite the published ones."
        )
    if not {"full", "reduced"} & set(stands):
        return said
    intervals = sum(verdict.judgement in ("verified", "differs") for verdict in verdicts)
    said.append(
        f"In brackets measured minus published; verified: at least {FEWEST_SEEDS} seeds, at most "
        f"{LARGEST_DIFFERENCE:.1f} points apart, 95 % interval at most ± {WIDEST_INTERVAL:.1f}."
        + ("" if "full" in stands else " A reduced recipe stays undecided.")
    )
    if intervals:
        said.append(f"Of {intervals} such intervals about {0.05 * intervals:.1f} miss by chance.")
    if any(row.kind == "summary" for row in rows):
        said.append(
            "Kendall's tau: learners in the published order minus learners against it, over the pairs whose published "
            f"values lie more than {SMALLEST_GAP:.0f} point apart (their number)."
        )
    return said
