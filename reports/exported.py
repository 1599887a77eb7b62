"""Finished runs as small CSV files, to be kept, shipped and read again: one line for each run and phase."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput, did_you_mean
from imbcil.harness.metrics import final_metrics
from imbcil.harness.store.run_info import PhaseInfo, RunInfo
from imbcil.harness.tracking.privacy import scrub_tree, scrub_value
from imbcil.reports.collect import StoredRun

FOLDER = "imbcil.reports.measured"
PROJECT = "measured by the project"
LEFT_OUT = ("schema_version", "class_names", "raw_counts", "rho100_counts", "phases", "command")
IDENTITY = tuple(name for name in RunInfo.model_fields if name not in LEFT_OUT)
PHASE = ("phase", "classes", "train_before_holdout", "train", "test")
LARGEST_FILE, LARGEST_CELL, MOST_PHASES = 32 * 2**20, 20_000, 1000
LARGEST_NUMBER = 1e15
RUN_KEY = re.compile(r"[0-9a-f]{16}(-\d{1,6})?")


def export_csv(runs: Iterable[StoredRun], hardware: str = "") -> str:
    """The text of a file with every phase of these finished runs; paths in settings keep their last part.

    Columns: identity (fields of RunInfo in a run's first line; texts as they are, all else as JSON), phase, and every
    metric of the runs.
    `hardware` is written for runs that do not say on what they were computed.
    """
    runs = sorted(runs, key=lambda run: (run.info.dataset, run.info.column, run.info.method, run.info.seed))
    metrics = sorted({name for run in runs for phase in run.phases for name in phase})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*IDENTITY, *PHASE, *metrics], restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        fields = {name: getattr(run.info, name) for name in IDENTITY}
        if not run.info.hardware:
            fields["hardware"] = hardware
        identity = {name: _text(value) for name, value in fields.items()}
        for number, (part, found) in enumerate(zip(run.info.phases, run.phases, strict=True)):
            sizes = {name: getattr(part, name) for name in PHASE[2:]}
            numbers = {name: repr(float(value)) for name, value in found.items()}
            described = identity if number == 0 else {"run_key": run.info.run_key}
            writer.writerow({**described, "phase": number, "classes": part.hi - part.lo, **sizes, **numbers})
    return stream.getvalue()


def project_runs() -> list[StoredRun]:
    """The runs that the project ships: what `measured/*.csv` holds."""
    folder = sorted(
        (item for item in files(FOLDER).iterdir() if item.name.endswith(".csv")), key=lambda i: i.name
    )
    return [run for item in folder for run in read_exported(item.read_bytes(), item.name, PROJECT)]


def read_exported_file(path: Path) -> list[StoredRun]:
    """The runs of a file that somebody exported, tagged `from NAME`. Raises BadInput naming file and line."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadInput(f"{path} is larger than {LARGEST_FILE >> 20} MiB, which no export of ours is.")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from None
    name = "".join(sign for sign in path.name if sign.isprintable())
    return read_exported(content, name, f"from {name}")


def read_exported(content: bytes, name: str, origin: str) -> list[StoredRun]:
    """The runs of an exported file's content, each with `origin`. Raises BadInput naming file and line."""
    lines = _lines(content, name)
    runs: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for number, line in lines:
        if not RUN_KEY.fullmatch(line["run_key"]):
            raise BadInput(f"{name}, line {number}: run_key {line['run_key'][:40]!r} is no run key.")
        runs.setdefault(line["run_key"], []).append((number, line))
    return [_run(rows, name, origin) for rows in runs.values()]


def _lines(content: bytes, name: str) -> list[tuple[int, Mapping[str, str]]]:
    """Lines by column with their number in the file."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError:
        raise BadInput(f"{name} is no UTF-8 text.") from None
    except csv.Error as error:
        raise BadInput(f"{name} is no CSV file: {error}.") from None
    if not rows:
        raise BadInput(f"{name} is empty; it needs the header that `imbcil-bench export` writes.")
    header = rows[0][1]
    _require_header(header, name)
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise BadInput(f"{name}, line {number}: {len(row)} cells under {len(header)} columns.")
        for column, cell in zip(header, row, strict=True):
            if len(cell) > LARGEST_CELL or not cell.isprintable():
                raise BadInput(
                    f"{name}, line {number}: {column} holds control characters or more than {LARGEST_CELL} signs."
                )
    return [(number, dict(zip(header, row, strict=True))) for number, row in rows[1:]]


def _require_header(header: Sequence[str], name: str) -> None:
    known = [*IDENTITY, *PHASE]
    for column in header:
        if header.count(column) > 1:
            raise BadInput(f"{name}: the column {column[:60]!r} is there twice.")
        if column not in known and not re.fullmatch(r"(phase|cost)/[\w./ -]{1,100}", column):
            raise BadInput(f"{name}: unknown column {column[:60]!r}; {did_you_mean(column[:60], known)}.")
    if missing := [column for column in ("run_key", *PHASE) if column not in header]:
        raise BadInput(f"{name}: the column {missing[0]!r} is missing; export the runs again.")


def _run(rows: Sequence[tuple[int, Mapping[str, str]]], name: str, origin: str) -> StoredRun:
    first_number, first = rows[0]
    identity = {key: value for key, value in first.items() if key in IDENTITY}
    phases, metrics, lo = [], [], 0
    for place, (number, row) in enumerate(rows):
        where = f"{name}, line {number}"
        if any(row[key] not in ("", text) for key, text in identity.items()):
            raise BadInput(
                f"{where}: run {first['run_key']} is described otherwise than in line {first_number}."
            )
        sizes = {key: _whole(row[key], key, where) for key in PHASE}
        if sizes.pop("phase") != place or place >= MOST_PHASES:
            raise BadInput(
                f"{where}: phases of run {first['run_key']} must be 0, 1, 2, ... in order, each once."
            )
        hi = lo + sizes.pop("classes")
        phases.append(PhaseInfo(lo=lo, hi=hi, classes=(), **sizes))
        metrics.append(_metrics(row, where))
        lo = hi
    where = f"{name}, line {first_number}"
    described = {key: _value(key, text, where) for key, text in identity.items()}
    info = validated(
        RunInfo, {**described, "class_names": (), "raw_counts": (), "phases": tuple(phases)}, where
    )
    return StoredRun(info, "finished", "", tuple(metrics), final_metrics(metrics), info.overrides, origin)


def _metrics(row: Mapping[str, str], where: str) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        if "/" in name and text:
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not abs(value) <= LARGEST_NUMBER:
                raise BadInput(f"{where}: {name} = {text[:40]!r} is no finite number.")
            found[name] = value
    return found


def _whole(text: str, key: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise BadInput(f"{where}: {key} = {text[:40]!r} is no whole number.")
    return int(text)


def _text(value: object) -> str:
    """A text as it is, anything else as JSON; without paths of this machine."""
    if isinstance(value, str):
        return scrub_value(value)
    return json.dumps(scrub_tree(json.loads(json.dumps(value))), sort_keys=True, ensure_ascii=False)


def _value(key: str, text: str, where: str) -> Any:
    """What `_text` wrote for this field of RunInfo."""
    if RunInfo.model_fields[key].annotation is str or key in ("preset", "label_kind"):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: {key} = {text[:40]!r} is no JSON.") from None
    if not json.dumps(value, ensure_ascii=False).isprintable() or "\\u00" in text:
        raise BadInput(f"{where}: {key} holds control characters.")
    return value
