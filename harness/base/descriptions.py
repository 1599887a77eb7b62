"""What `list` says about a learner or plug-in, read from its file's syntax tree: nothing is imported."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imbcil.harness.base.registry import Kind, Source, find_source

BASES = {"learner": "Learner", "plugin": "Plugin"}


@dataclass(frozen=True)
class Description:
    """One line of `list`. Fields that the file leaves open are empty."""

    name: str
    kind: Kind
    summary: str  # first line of the docstring, without a trailing full stop
    title: str = ""  # how tables name the row, where that is not the name
    labels: tuple[str, ...] = ()  # label kinds it can learn from: single, multi
    slots: tuple[str, ...] = ()  # of a plug-in: what it claims alone
    source: str = ""  # of a plug-in: paper and section
    memory: str = ""  # of a learner: none, optional or required
    upper_bound: bool = False  # sees past data whole
    reconstruction: bool = False  # no public code; open choices are settings
    origin: str = "built-in"


def describe(kind: Kind, name: str) -> Description:
    """Read a description without importing. Raises UnknownName or, for a path, BadInput."""
    source = find_source(kind, name)
    tree = _tree(source.file)
    if tree is None:
        return Description(name, kind, f"from {source.target}", origin=source.origin)
    literals, own = _literals(tree, kind)
    return _description(source, ast.get_docstring(tree) or own, literals)


def _description(source: Source, docstring: str, literals: dict[str, Any]) -> Description:
    needs = literals.get("needs") or {}
    learner = source.kind == "learner"
    labels = needs.get("labels", {"single"}) if learner else literals.get("labels", {"single", "multi"})
    return Description(
        name=source.name,
        kind=source.kind,
        summary=_first_line(docstring),
        title=str(literals.get("title") or ""),
        labels=tuple(sorted(labels or ())),
        slots=() if learner else tuple(literals.get("slots") or ()),
        source="" if learner else str(literals.get("source") or ""),
        memory=str(needs.get("memory") or "optional") if learner else "",
        upper_bound=bool(needs.get("privileged") or literals.get("upper_bound")),
        reconstruction=bool(literals.get("reconstruction")),
        origin=source.origin,
    )


def _tree(file: Path | None) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError, SyntaxError):
        return None  # listing goes on; loading it by name says what is wrong


def _literals(tree: ast.Module, kind: Kind) -> tuple[dict[str, Any], str]:
    """Literal assignments of the learner's or plug-in's class, and the class's docstring."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and BASES[kind] in {_name(base) for base in node.bases}:
            return dict(_assignments(node)), ast.get_docstring(node) or ""
    return {}, ""


def _assignments(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            yield line.targets[0].id, _value(line.value)
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            yield line.target.id, _value(line.value)


def _value(node: ast.expr) -> Any:
    """A literal's value; a call such as Needs(memory="none") as a dict of its literal keywords; else None."""
    if isinstance(node, ast.Call):
        if _name(node.func) in {"frozenset", "set", "tuple"} and len(node.args) == 1:
            return _value(node.args[0])
        return {word.arg: _value(word.value) for word in node.keywords if word.arg}
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _first_line(docstring: str) -> str:
    """The first sentence, joined when it breaks over lines; `et al.` does not end one."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"(?<!\bal)(?<!\bcf)(?<!\bsec)\. ", paragraph)[0].rstrip(".")
