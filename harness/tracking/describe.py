"""Names, tags, params and texts that MLflow shows of a run: pure functions of its folder's files."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.tracking.privacy import scrub, scrub_command, scrub_value
from imbcil.harness.tracking.truth import Truth

LONGEST_PARAM = 6000  # MLflow cuts longer ones without a word
LONGEST_TAG = 5000
LONGEST_TEXT = 7800  # a run's description is cut at 8000
_ILLEGAL_IN_KEYS = re.compile(r"[^\w\-./ ]+")  # MLflow also allows a colon, but not on Windows
_PRIMARY = ("phase/acc_total", "phase/map")
_COLUMNS = (
    ("total", "phase/acc_total"),
    ("task mean", "phase/acc_task_mean"),
    ("mAP", "phase/map"),
    ("new", "phase/acc_new"),
    ("old", "phase/acc_old"),
    ("many", "phase/acc_many"),
    ("medium", "phase/acc_medium"),
    ("few", "phase/acc_few"),
    ("base", "phase/map_base"),
    ("new mAP", "phase/map_new"),
    ("CF1 at 0.8", "phase/cf1_mean_t0.8"),
    ("OF1 at 0.8", "phase/of1_t0.8"),
    ("head", "phase/map_head"),
    ("medium mAP", "phase/map_medium"),
    ("tail", "phase/map_tail"),
    ("forgetting", "phase/forgetting"),
)


def legal_key(key: str) -> str:
    """`key` with what MLflow refuses in names replaced by underscores, at most 250 characters."""
    cleaned = _ILLEGAL_IN_KEYS.sub("_", key)
    parts = [part.strip() if set(part) - {"."} else "_" for part in cleaned.split("/")]
    return "/".join(part or "_" for part in parts)[:250].rstrip("/ ")


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under legal names; NaN and infinities left out, for they ruin means and axes."""
    return {legal_key(key): float(value) for key, value in metrics.items() if math.isfinite(value)}


def dropped(truth: Truth) -> list[str]:
    """`key@phase` of every number that is not finite and so not shown."""
    named = [(f"@{record.phase}", record.metrics) for record in truth.records] + [("", truth.state.final)]
    return [f"{key}{at}" for at, metrics in named for key in metrics if not math.isfinite(metrics[key])]


def run_name(info: RunInfo) -> str:
    """`icarl+more s0`; a further attempt says so."""
    attempt = f" attempt {info.attempt}" if info.attempt > 1 else ""
    return f"{scrub_value(info.method)} s{info.seed}{attempt}"


def parent_name(info: RunInfo, seeds: int) -> str:
    """`icarl+more (mean of 3)`; before its seeds are complete: `icarl+more (mean)`."""
    return f"{scrub_value(info.method)} (mean of {seeds})" if seeds else f"{scrub_value(info.method)} (mean)"


def row_label(info: RunInfo, group: str) -> str:
    """What runs of one mean share, to be read and grouped by; the end tells apart what the words do not."""
    words = (
        scrub_value(info.method),
        scrub_value(info.order),
        info.recipe,
        info.preset,
        info.memory,
        group[:4],
    )
    return " | ".join(words)


def shared_tags(info: RunInfo, group: str) -> dict[str, str]:
    """Tags that a run and the mean over its seeds have in common."""
    return {
        "method": scrub_value(info.method),
        "plugin": "+".join(info.plugins) or "none",
        "dataset": info.dataset,
        "protocol": info.column,
        "recipe": info.recipe,
        "preset": info.preset,
        "memory": info.memory,
        "order": scrub_value(info.order),
        "row": row_label(info, group),
        "recon": _yes(info.reconstruction),
        "upper_bound": _yes(info.upper_bound),
        "oracle_memory": _yes(info.oracle_memory),
        "reduced": _yes(info.reduced),
        "embedded": _yes(info.embedded),
        "imbcil.group": group,
        "imbcil.version": info.version,
        "mlflow.user": "imbcil",
        "mlflow.source.name": "imbcil-bench",
    }


def run_tags(truth: Truth, group: str, status: str) -> dict[str, str]:
    """All tags of one seed's run."""
    info = truth.info
    tags = shared_tags(info, group) | {
        "seed": str(info.seed),
        "digest": info.digest[:12],
        "imbcil.role": "run",
        "imbcil.run_key": info.run_key,
        "imbcil.attempt": str(info.attempt),
        "imbcil.status_reason": shown_reason(truth)[:LONGEST_TAG] or status,
        "mlflow.note.content": description(truth, status),
    }
    if left_out := dropped(truth):
        tags["imbcil.dropped"] = f"not finite: {', '.join(left_out)}"[:LONGEST_TAG]
    return tags


def run_params(truth: Truth) -> dict[str, str]:
    """The config and what it was resolved to, flattened with dots; MLflow keeps the first value for good."""
    info = truth.info
    described = info.model_dump(
        mode="json",
        exclude={"schema_version", "run_key", "class_names", "raw_counts", "phases", "command", "created_ms"}
        | {"settings", "config"},
    )
    described |= {"n_classes": len(info.raw_counts), "n_phases": len(info.phases)}
    config = dict(truth.config)
    flat: dict[str, object] = {}
    for section in ("recipe", "set"):  # their keys are known without the section: train.lr, icarl.temperature
        if isinstance(tree := config.pop(section, None), Mapping):
            flat |= {key: value for key, value in _flatten(tree) if key not in ("name", "summary")}
    flat |= dict(_flatten(config)) | dict(_flatten(info.settings)) | dict(_flatten(described))
    flat.pop("seeds", None)  # belongs to the command, not to one seed's run
    return {legal_key(key): _param(value) for key, value in flat.items()}


def _flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _param(value: object) -> str:
    if isinstance(value, str):
        text = scrub_value(value)
    else:
        text = scrub(json.dumps(value, default=str, sort_keys=True))
    if len(text) > LONGEST_PARAM:
        return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}, see config.yaml"
    return text


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def escape(text: str) -> str:
    """User text inside Markdown: no table borders, code, links or markup of its own."""
    table: dict[str, str | int | None] = {"|": "\\|", "`": "'", "<": "&lt;", ">": "&gt;", "\n": " "}
    table |= {"[": "\\[", "]": "\\]", "*": "\\*"}
    return text.translate(str.maketrans(table))


def shown_reason(truth: Truth) -> str:
    """Why a run stopped, without the store's whereabouts."""
    return scrub(truth.state.reason, truth.folder.path.parent.parent)


def shown_command(info: RunInfo) -> str:
    """The command that repeats the run, as code."""
    command = scrub_command(info.command) or "unknown"
    return f"`{command.replace('`', chr(39)).replace(chr(10), ' ')[:2000]}`"


def description(truth: Truth, status: str) -> str:
    """What a run's page shows: one line of identity, a table of phases, the command (<= 8000 characters)."""
    info = truth.info
    facts = [f"seed {info.seed}", f"{escape(info.column)} on {escape(info.dataset)}", f"recipe {info.recipe}"]
    facts += [f"preset {info.preset}", f"memory {escape(info.memory)}", f"digest {info.digest[:12]}"]
    facts += [
        word for word, true in (("embedded data", info.embedded), ("reduced recipe", info.reduced)) if true
    ]
    head = f"**{escape(scrub_value(info.method))}** · " + " · ".join(facts)
    done = f"Status: {status}, {len(truth.records)} of {len(info.phases)} phases"
    reason = f" ({escape(shown_reason(truth))})" if truth.state.reason else ""
    tail = f"Command: {shown_command(info)}\n\nVersion {info.version} · {done}{reason[:1000]}"
    rows = [(record.phase, record.metrics) for record in truth.records]
    seen = [phase.hi for phase in info.phases]
    return _fitting(head, phase_table(rows, seen), tail)


def phase_table(rows: Sequence[tuple[int, Mapping[str, float]]], seen: Sequence[int]) -> list[str]:
    """A Markdown table, one line per phase: classes seen so far and the accuracies (%) that are there."""
    columns = [(title, key) for title, key in _COLUMNS if any(key in metrics for _, metrics in rows)]
    if not columns:
        return []
    lines = [
        f"| phase | classes | {' | '.join(title for title, _ in columns)} |",
        f"|---:|---:|{'---:|' * len(columns)}",
    ]
    for phase, metrics in rows:
        values = [f"{metrics[key]:.2f}" if key in metrics else "" for _, key in columns]
        classes = seen[phase] if phase < len(seen) else ""
        lines.append(f"| {phase} | {classes} | {' | '.join(values)} |")
    return lines


def _fitting(head: str, table: list[str], tail: str) -> str:
    """The parts joined; phases in the middle of a very long table give way."""
    while len(text := "\n".join([head, "", *table, "", tail])) > LONGEST_TEXT and len(table) > 4:
        middle = len(table) // 2 + 1
        table = [*table[: middle - 1], *table[middle:]]
    return text[:LONGEST_TEXT]


def primary_key(metrics: Mapping[str, float]) -> str | None:
    """The metric by which a phase is found again in MLflow: the primary accuracy, else the first by name."""
    names = sorted(key for key in finite(metrics) if not key.startswith("cost/"))
    return next((key for key in _PRIMARY if key in names), names[0] if names else None)


def readme(truth: Truth, status: str) -> str:
    """`README.md` among the artifacts."""
    return f"# {escape(run_name(truth.info))}\n\n{description(truth, status)}\n"
