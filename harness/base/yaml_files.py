"""YAML read safely, with the line of each top-level key for error messages."""

from pathlib import Path
from typing import Any

import yaml

from imbcil.harness.base.errors import BadInput

LARGEST_CONFIG = 1 << 20  # bytes; a config beyond this is a mistake or an attack


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises BadInput for a missing, huge, broken or non-mapping file.

    Aliases are refused: they are never needed in a config and can expand to gigabytes.
    """
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise BadInput(f"{path} is larger than 1 MiB; that is no config file.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; `where` leads the error's sentence."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise BadInput(f"{where}: YAML aliases are not allowed; write the value out.")
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read as YAML"
        raise BadInput(f"{where}{line}: {problem}.") from None
    except (RecursionError, ValueError):
        raise BadInput(f"{where} cannot be read as YAML: a value is malformed or nested too deep.") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadInput(f"{where} must hold `key: value` lines at the top level.")
    return content


def line_of(path: Path, key: str) -> int | None:
    """The 1-based line on which a top-level `key` stands, for messages such as `lfs.yaml, line 4`."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.split(":", 1)[0].strip().strip("'\"") == key:
            return number
    return None
