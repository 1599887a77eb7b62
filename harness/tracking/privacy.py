"""What leaves the store goes through here: no absolute path, no password of an address."""

import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_OPTIONS_LEFT_OUT = ("--store", "--tracking-uri", "--data-root")
_PASSWORD = re.compile(r"(?<=://)[^/\s\"'@]+@")
_QUOTED_PATH = re.compile(r"""(["'])(?:~?/|[A-Za-z]:[\\/])(?:[^"'\n]*[\\/])?([^"'\\/\n]*)\1""")
_PATH = re.compile(r"""(?:(?<=[\s"'=:,(\[])|^)(?:~?/(?!/)|[A-Za-z]:[\\/](?!/))[^\s"',;|)\]]+""", re.MULTILINE)


def scrub(text: str, *roots: Path) -> str:
    """`text` with absolute paths cut to their last part and passwords taken out of addresses.

    `roots`: folders whose names may hold spaces, beside home, working and temporary folder.
    """
    text = _PASSWORD.sub("", text)
    known = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), *map(str, roots)} - {"/"}
    for root in sorted(known, key=len, reverse=True):
        text = re.sub(rf"{re.escape(root)}(?=[\\/])", "/~", text)
    text = _QUOTED_PATH.sub(lambda found: f"{found[1]}{found[2]}{found[1]}", text)
    return _PATH.sub(lambda found: _last_part(found[0]), text)


def scrub_value(value: str) -> str:
    """One setting's value: a path keeps its last part, whatever characters its folders hold."""
    if value.startswith(("/", "~/")) or PureWindowsPath(value).is_absolute():
        return _last_part(value)
    return scrub(value)


def scrub_tree(tree: Any) -> Any:
    """A parsed config or JSON document with every text in it cleaned as a value."""
    if isinstance(tree, Mapping):
        return {key: scrub_tree(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [scrub_tree(value) for value in tree]
    return scrub_value(tree) if isinstance(tree, str) else tree


def scrub_command(command: str) -> str:
    """The command line without the options that say where things lie on this machine."""
    try:
        words = shlex.split(command)
    except ValueError:
        return scrub(command)
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _OPTIONS_LEFT_OUT:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in _OPTIONS_LEFT_OUT)):
            option, mark, value = word.partition("=")
            kept.append(f"{option}={scrub_value(value)}" if mark else scrub_value(word))
    return shlex.join(kept)


def _last_part(path: str) -> str:
    windows = "\\" in path or path[1:2] == ":"
    return (PureWindowsPath(path) if windows else PurePosixPath(path)).name or "path"
