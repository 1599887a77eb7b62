"""Metrics by the names that people type, and the sentence for one that no run has."""

from collections.abc import Iterable

from imbcil.harness.base.errors import BadInput, UnknownName

FINAL, PHASE = "final/", "phase/"
ELSEWHERE = ("cost/", "train/", "seeds/")  # per phase, in `phases.jsonl` and the dashboard


def full_name(metric: str) -> str:
    """`avg_acc_total` and `final/avg_acc_total` are the same metric."""
    return metric if metric.startswith(FINAL) else f"{FINAL}{metric}"


def unknown_metric(asked: str, known: Iterable[str]) -> BadInput:
    """The error for a metric that none of `known` (`final/...`) is: what of it a table shows, or the nearest names."""
    short = sorted({name.removeprefix(FINAL) for name in known})
    if asked.startswith(ELSEWHERE):
        return BadInput(
            f"{asked} is in no table; it stands in each run's phases.jsonl and in the dashboard (`imbcil-bench ui`)."
        )
    bare = asked.removeprefix(FINAL).removeprefix(PHASE)
    where, _, measure = bare.rpartition("/")
    summaries = {
        f"{where}/{when}_{measure}".lstrip("/"): said
        for when, said in (("avg", "its mean over all phases"), ("last", "its value after the last one"))
    }
    if there := [f"{name} ({said})" for name, said in summaries.items() if name in short]:
        return BadInput(
            f"{asked} is measured after every phase, and a table shows one number of a run: ask for "
            f"{' or '.join(there)}."
        )
    return UnknownName("metric", bare, short)
