"""YAML read safely, with the line of each top-level key for error messages."""

from pathlib import Path
from typing import Any

import yaml

from imbcil.harness.base.errors import BadInput

OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
DEEPEST = 32
LARGEST_CONFIG = 1 << 20  # bytes; a config beyond this is a mistake or an attack


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises BadInput for a missing, huge, broken or non-mapping file.

    Aliases are refused: they are never needed in a config and can expand to gigabytes.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_CONFIG + 1)  # a device such as /dev/zero has no size and no end
        if len(content) > LARGEST_CONFIG:
            raise BadInput(f"{path} is larger than 1 MiB; that is no config file.")
        text = content.decode()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_shipped_yaml(text: str, where: str) -> dict[str, Any]:
    """`parse_yaml` for files of this program, which `list` has to read quickly: with the parser in C where there is
    one. Never for a user's file: deep nesting crashes it."""
    if not hasattr(yaml, "CSafeLoader"):
        return parse_yaml(text, where)
    content = yaml.load(text, Loader=yaml.CSafeLoader)
    if not isinstance(content, dict):
        raise BadInput(f"{where} must hold `key: value` lines at the top level.")
    return content


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; `where` leads the error's sentence."""
    try:
        _refuse_traps(text, where)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read as YAML"
        raise BadInput(f"{where}{line}: {problem}.") from None
    except (
        RecursionError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ):  # PyYAML lets all of them out
        raise BadInput(f"{where} cannot be read as YAML: a value is malformed or nested too deep.") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadInput(f"{where} must hold `key: value` lines at the top level.")
    return content


def _refuse_traps(text: str, where: str) -> None:
    """Refuse what takes for ever: aliases and deep nesting. The scanner is lazy, so this ends where it begins."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken):
            raise BadInput(f"{where}: YAML aliases are not allowed; write the value out.")
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if depth > DEEPEST:
            line = token.start_mark.line + 1
            raise BadInput(
                f"{where}, line {line}: values are nested more than {DEEPEST} deep; no setting is."
            )


def line_of(path: Path, key: str) -> int | None:
    """The 1-based line on which a top-level `key` stands, for messages such as `lfs.yaml, line 4`."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.split(":", 1)[0].strip().strip("'\"") == key:
            return number
    return None
