"""`imbcil-bench list`: what can be named on the command line."""

from collections.abc import Callable, Mapping
from typing import Any

import click

Item = dict[str, Any]


@click.command(epilog="Example: imbcil-bench list learners --json")
@click.argument("what", required=False, metavar="[learners|plugins|protocols|datasets|recipes|suites]")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with `name` and `kind`.")
def command(what: str | None, as_json: bool) -> None:
    """List learners, plug-ins, protocols, datasets, recipes or suites; all of them without a word."""
    listed = {name: LISTS[name]() for name in _chosen(what)}
    if as_json:
        import json

        click.echo(json.dumps([item for items in listed.values() for item in items], indent=1))
        return
    formatter = click.HelpFormatter(width=max(60, min(_terminal_width(), 160)))
    for name, items in listed.items():
        with formatter.section(HEADINGS[name]):
            formatter.write_dl([(item["name"], _line(item)) for item in items] or [("(none)", "")])
    click.echo(formatter.getvalue().rstrip())


def _chosen(what: str | None) -> list[str]:
    from imbcil.harness.base.errors import UnknownName

    if what is None:
        return list(LISTS)
    word = {"learner": "learners", "plugin": "plugins", "plug-ins": "plugins"}.get(what, what)
    if word not in LISTS:
        raise UnknownName("list", what, list(LISTS))
    return [word]


def _learners() -> list[Item]:
    from imbcil.harness.base.registry import learner_names

    return [_described("learner", name) for name in learner_names()]


def _plugins() -> list[Item]:
    from imbcil.harness.base.registry import plugin_names

    return [_described("plugin", name) for name in plugin_names()]


def _described(kind: Any, name: str) -> Item:
    from dataclasses import asdict

    from imbcil.harness.base.descriptions import describe

    return asdict(describe(kind, name))


def _protocols() -> list[Item]:
    from imbcil.protocols.splits import protocol_names, protocol_rule

    rules = [protocol_rule(name) for name in protocol_names()]
    return [
        {"name": rule.name, "kind": "protocol", "summary": rule.summary, "labels": ["single", "multi"] if rule.label_kind == "any" else [rule.label_kind],
         "default_dataset": rule.dataset, "default_n_tasks": rule.n_tasks}
        for rule in rules
    ]  # fmt: skip


def _datasets() -> list[Item]:
    from imbcil.protocols.catalogue import catalogue, dataset_names

    entries = catalogue()
    return [
        {
            "name": name,
            "kind": "dataset",
            "summary": entry.title,
            "classes": entry.classes,
            "labels": [entry.label_kind],
            "embedded": entry.embedded,
        }
        if (entry := entries.get(name))
        else {"name": name, "kind": "dataset", "summary": "imported on this machine", "embedded": False}
        for name in dataset_names()
    ]


def _recipes() -> list[Item]:
    return _summaries("recipe", "imbcil.harness.recipes")


def _suites() -> list[Item]:
    return _summaries("suite", "imbcil.protocols.suites")


def _summaries(kind: str, package: str) -> list[Item]:
    """A file's line is its key `summary`. The package that reads the files is found, not imported."""
    import re
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = sorted((file for folder in folders for file in folder.glob("*.yaml")), key=lambda file: file.stem)
    lines = [re.search(r"^summary: *(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files]
    return [
        {"name": file.stem, "kind": kind, "summary": line[1].strip("\"'") if line else ""}
        for file, line in zip(files, lines, strict=True)
    ]


def _line(item: Item) -> str:
    """The summary and, in brackets, what narrows its use."""
    slots = ", ".join(item.get("slots") or ())
    notes = [
        "multi-label" if tuple(item.get("labels") or ()) == ("multi",) else "",
        "single- and multi-label" if len(item.get("labels") or ()) > 1 else "",
        "single-label" if item.get("kind") == "plugin" and tuple(item["labels"]) == ("single",) else "",
        f"slot {slots}" if slots else "",
        "upper bound" if item.get("upper_bound") else "",
        "needs memory" if item.get("memory") == "required" else "",
        "reconstruction" if item.get("reconstruction") else "",
        "embedded" if item.get("embedded") else "",
        f"{item['classes']} classes" if "classes" in item else "",
        "" if item.get("origin", "built-in") == "built-in" else "from another package",
        str(item.get("source") or ""),
    ]
    shown = "; ".join(note for note in notes if note)
    return f"{item['summary']} [{shown}]" if shown else str(item["summary"])


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((110, 24)).columns


HEADINGS = {
    "learners": "Learners (--method NAME)",
    "plugins": "Plug-ins (--method LEARNER+NAME)",
    "protocols": "Protocols (--protocol NAME)",
    "datasets": "Datasets (--dataset NAME; NAME-lt is its long-tailed form)",
    "recipes": "Recipes (--recipe NAME)",
    "suites": "Suites (sweep NAME)",
}
LISTS: Mapping[str, Callable[[], list[Item]]] = {
    "learners": _learners,
    "plugins": _plugins,
    "protocols": _protocols,
    "datasets": _datasets,
    "recipes": _recipes,
    "suites": _suites,
}
