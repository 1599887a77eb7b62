"""Learners and plug-ins found by name: one file each, nothing else to edit, nothing imported to list them.

A built-in one is a file in `methods/` or `baselines/` (plug-ins: in `plugins/` below); a package joins by the entry
points `imbcil.learners` and `imbcil.plugins`; a single file joins by its path, `./mine.py`.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal, NamedTuple

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.installed import installed

Kind = Literal["learner", "plugin"]
Origin = Literal["built-in", "package", "file"]


class Method(NamedTuple):
    """What `--method podnet+more+two_stage` names; the plug-ins in the order written."""

    learner: str
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a learner or plug-in comes from. `file` is None for a package's: finding it would import the package."""

    kind: Kind
    name: str
    origin: Origin
    file: Path | None
    target: str  # module name, entry-point value, or absolute path


# --- names ------------------------------------------------------------------------------------------------------


def learner_names() -> list[str]:
    """Every learner that is built in or installed, sorted. Reads file names; imports no learner and no torch."""
    return sorted(_sources("learner"))


def plugin_names() -> list[str]:
    """Every plug-in that is built in or installed, sorted. Reads file names; imports nothing."""
    return sorted(_sources("plugin"))


def entry_point_names(group: str) -> list[str]:
    """Names that installed packages register under a group such as `imbcil.datasets`; imports nothing."""
    return sorted({entry.name for entry in installed(group)})


def load_entry_point(group: str, name: str) -> Any:
    """The object that an installed package registers as `name`. Raises UnknownName, or BadInput if it breaks."""
    found = [entry for entry in installed(group) if entry.name == name]
    if not found:
        raise UnknownName(group.removeprefix("imbcil.").removesuffix("s"), name, entry_point_names(group))
    return _loaded_entry(found[0])


def is_path(name: str) -> bool:
    """Whether a name on the command line means a file (`./mine.py`) and not a registered one."""
    return name.endswith(".py") or "/" in name or "\\" in name


def short_name(name: str) -> str:
    """The name in tables and in `--set <name>.<key>`: a file's stem, else the name itself."""
    return Path(name).stem if is_path(name) else name


def parse_method(text: str) -> Method:
    """Read `learner+plugin+plugin`. Raises BadInput or UnknownName in a sentence; imports no learner."""
    learner, *plugins = names = _parts(text)
    if not all(names):
        raise BadInput(
            f"--method {text!r} lacks a name; write a learner, then plug-ins: replay+balanced_softmax."
        )
    _check_name("learner", learner)
    for plugin in plugins:
        _check_name("plugin", plugin)
    if twice := [plugin for index, plugin in enumerate(plugins) if plugin in plugins[:index]]:
        raise BadInput(f"--method {text}: the plug-in {twice[0]} stands there twice; write it once.")
    return Method(learner, tuple(plugins))


def located_method(text: str) -> str:
    """`text` with the paths of files made absolute, so that it means the same in any folder."""
    parts = (str(Path(part).expanduser().absolute()) if is_path(part) else part for part in _parts(text))
    return "+".join(parts)


# --- classes ----------------------------------------------------------------------------------------------------


def load_learner(name: str) -> type[Any]:
    """Import one learner's file and take the Learner subclass that it defines.

    Raises UnknownName; BadInput for a user's file that is missing, broken, or defines none or several.
    """
    return _load(find_source("learner", name))


def load_plugin(name: str) -> type[Any]:
    """Import one plug-in's file and take the Plugin subclass that it defines; errors as in `load_learner`."""
    return _load(find_source("plugin", name))


def learner_version(name: str, cfg: Any) -> str:
    """What identifies a learner's code in the run key: its `version_with` the settings, or the hash of a user's file."""
    return _version(find_source("learner", name), cfg)


def plugin_version(name: str, cfg: Any) -> str:
    """What identifies a plug-in's code in the run key, as in `learner_version`."""
    return _version(find_source("plugin", name), cfg)


def find_source(kind: Kind, name: str) -> Source:
    """Where `name` comes from. Raises UnknownName, or BadInput for a path that is no readable file."""
    if not is_path(name):
        own = _built_in(kind)
        sources = own if name in own else _sources(kind)
        if name not in sources:
            raise UnknownName(_word(kind), name, sorted(sources))
        return sources[name]
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise BadInput(f"There is no file {name}; --method takes a name (`imbcil-bench list`) or a .py file.")
    if path.suffix != ".py":
        raise BadInput(f"{name} is no Python file; a {_word(kind)} joins by a path that ends in .py.")
    return Source(kind, path.stem, "file", path, str(path))


# --- how ----------------------------------------------------------------------------------------------------------


def _sources(kind: Kind) -> dict[str, Source]:
    """All registered ones by name; a built-in name wins over a package's."""
    found = {entry.name: _package_source(kind, entry) for entry in installed(f"imbcil.{kind}s")}
    return {**found, **_built_in(kind)}


@lru_cache(maxsize=2)
def _built_in(kind: Kind) -> dict[str, Source]:
    return {source.name: source for source in _files(kind)}


def _files(kind: Kind) -> Iterator[Source]:
    for floor in ("methods", "baselines"):
        spec = find_spec(f"imbcil.{floor}")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            place = Path(folder) / "plugins" if kind == "plugin" else Path(folder)
            package = f"imbcil.{floor}.plugins" if kind == "plugin" else f"imbcil.{floor}"
            for file in iter_modules([str(place)]):
                if not file.ispkg and not file.name.startswith("_"):
                    path = place / f"{file.name}.py"
                    yield Source(kind, file.name, "built-in", path, f"{package}.{file.name}")


def _package_source(kind: Kind, entry: EntryPoint) -> Source:
    return Source(kind, entry.name, "package", None, entry.value)


def _parts(text: str) -> list[str]:
    """Split at `+`, but not inside a path: `c++/mine.py+more` is a file and a plug-in."""
    parts: list[str] = []
    for piece in text.split("+"):
        if parts and is_path(parts[-1]) and not parts[-1].endswith(".py"):
            parts[-1] = f"{parts[-1]}+{piece}"
        else:
            parts.append(piece)
    return [part.strip() for part in parts]


def _check_name(kind: Kind, name: str) -> None:
    """find_source, with a better sentence for a name that stands in the wrong place."""
    other: Kind = "plugin" if kind == "learner" else "learner"
    if not is_path(name) and name in _built_in(other) and name not in _sources(kind):
        example = f"replay+{name}" if kind == "learner" else "replay+balanced_softmax"
        raise BadInput(f"{name} is a {_word(other)}, not a {_word(kind)}; learner first, as in {example}.")
    find_source(kind, name)


def _load(source: Source) -> type[Any]:
    if source.origin == "built-in":
        return _only_class(import_module(source.target), source)
    if source.origin == "file":
        return _with_settings(_only_class(_import_file(source), source), source)
    loaded = load_entry_point(f"imbcil.{source.kind}s", source.name)
    return _with_settings(_only_class(loaded, source) if isinstance(loaded, ModuleType) else loaded, source)


def _with_settings(kind: type[Any], source: Source) -> type[Any]:
    """The class itself, once its Config is one. Raises BadInput."""
    from imbcil.harness.base.config import Frozen

    config = getattr(kind, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Frozen)):
        base = "LearnerConfig" if source.kind == "learner" else "Frozen"
        raise BadInput(f"{source.file or source.target}: {kind.__name__}.Config has to be a class of {base}.")
    return kind


def _loaded_entry(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # another package's code may fail in any way
        raise BadInput(
            f"The entry point {entry.group}: {entry.name} = {entry.value} breaks: {_reason(error)}"
        ) from error


def _only_class(module: ModuleType, source: Source) -> type[Any]:
    """The one class of the contract that the module itself defines; names with an underscore are helpers."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and getattr(value, "contract", None) == source.kind
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        count = "no class" if not found else f"{len(found)} classes ({', '.join(c.__name__ for c in found)})"
        base = "Learner" if source.kind == "learner" else "Plugin"
        raise BadInput(f"{source.file or source.target} defines {count} of {base}; define exactly one.")
    return found[0]


def _import_file(source: Source) -> ModuleType:
    """Import a user's file under a name made of its path and content, so that two versions never mix."""
    path = Path(source.target)
    stem = re.sub(r"\W", "_", path.stem)
    name = f"imbcil_file_{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{_file_hash(path)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    module = _executed(spec, path) if spec else None
    if module is None:
        raise BadInput(f"{path} cannot be imported as a Python file.")
    return module


def _executed(spec: ModuleSpec, path: Path) -> ModuleType | None:
    if spec.loader is None:
        return None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # before running it: pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's code may fail in any way; the sentence names where
        del sys.modules[spec.name]
        raise BadInput(f"{path}{_line(error, path)}: {_reason(error)}") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """`, line 7`: where in the user's file the error arose."""
    number = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            number = trace.tb_lineno
        trace = trace.tb_next
    return f", line {number}" if number else ""


def _reason(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


def _version(source: Source, cfg: Any) -> str:
    if source.origin == "file":
        return f"sha256:{_file_hash(Path(source.target))}"
    return str(_load(source).version_with(cfg))


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror or error}.") from None


def _word(kind: Kind) -> str:
    return "plug-in" if kind == "plugin" else "learner"
