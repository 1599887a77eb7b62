"""From flags and a config file to one RunRequest; every wrong key or value is named with its flag or line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput, did_you_mean
from imbcil.harness.base.yaml_files import line_of, parse_yaml, read_yaml
from imbcil.harness.request import RunRequest

Values = dict[str, Any]
SPLIT_KEYS = ("base", "step", "n_tasks", "sizes")


def build_request(flags: Mapping[str, Any], config: Path | None, pairs: Sequence[str]) -> RunRequest:
    """Flags win over the file, `--set` pairs over its `set:`. Raises BadInput."""
    from_file = _read_file(config) if config else {}
    from_line = {key: value for key, value in flags.items() if value is not None}
    if from_line.keys() & {"split", *SPLIT_KEYS}:  # one way to split wins over another
        drop = SPLIT_KEYS if "split" in from_line else ("split",)
        from_file = {key: value for key, value in from_file.items() if key not in drop}
    settings = {**_flat(from_file.get("set") or {}), **read_pairs(pairs)}
    for key, value in from_line.items():
        validated(RunRequest, {key: value}, _flag(key))
    return validated(RunRequest, {**from_file, **from_line, "set": settings}, str(config or "run"))


def read_pairs(pairs: Sequence[str]) -> Values:
    """`--set` pairs as path -> value. Raises BadInput naming the pair."""
    return dict(_pair(pair) for pair in pairs)


def _read_file(path: Path) -> Values:
    """The file's values, each checked by itself so that an error can name its line."""
    content = read_yaml(path)
    if "seed" in content and "seeds" not in content:
        content["seeds"] = content.pop("seed")
    for key, value in content.items():
        place = _place(path, key)
        if key not in RunRequest.model_fields:
            raise BadInput(
                f"{place}: unknown key {key!r}; {did_you_mean(key, sorted(RunRequest.model_fields))}."
            )
        content[key] = _as_meant(key, value)
        validated(RunRequest, {key: content[key]}, place)
    return content


def _as_meant(key: str, value: Any) -> Any:
    """Undo what YAML makes of bare words: `compile: on` is no truth value, `memory: 2000` no number."""
    if key == "compile" and isinstance(value, bool):
        return "on" if value else "off"
    if key in {"memory", "device"} and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if key in {"sizes", "seeds"} and isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value


def _place(path: Path, key: str) -> str:
    number = line_of(path, key) or (line_of(path, "seed") if key == "seeds" else None)
    return f"{path}, line {number}" if number else str(path)


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _pair(text: str) -> tuple[str, Any]:
    """`train.epochs=3` -> ("train.epochs", 3). The value is read as YAML: numbers, true, [1, 2], words."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", path):
        raise BadInput(f"--set {text!r}: write a path, =, and a value, such as train.epochs=3.")
    return path, _number(parse_yaml(f"value: {value}", f"--set {text}").get("value"))


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a word; people mean a number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _flat(settings: Mapping[str, Any]) -> Values:
    """`{train: {epochs: 3}}` and `{train.epochs: 3}` mean the same; the latter is what the line can override."""
    return dict(_leaves("", settings))


def _leaves(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(f"{path}.", value)
        else:
            yield path, _number(value)
