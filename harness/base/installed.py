"""What installed packages register, looked up once: each look reads the metadata of every package there is."""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group such as `imbcil.learners`; looked up again where the import path has changed."""
    return _found(group, tuple(sys.path))


@lru_cache(maxsize=32)
def _found(group: str, places: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))
