"""What other installed packages bring, by the entry points that they declare."""

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def brought(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group such as `imbcil.learners`; loads none of them."""
    return _scanned(group, tuple(sys.path))


@cache  # opens the metadata of every installed package, and one resolved run asks some ten times
def _scanned(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))
