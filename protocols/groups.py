"""Many, medium and few: the long-tail field's groups of classes by training images."""

from collections.abc import Iterable

GROUPS = ("many", "medium", "few")
MANY_ABOVE, FEW_BELOW = 100, 20  # Liu et al. 2019 (OLTR); Kang et al. 2020


def count_groups(counts: Iterable[int]) -> tuple[str, ...]:
    """ "many" (more than 100), "few" (fewer than 20) or "medium" for each class, from its training images."""
    return tuple("many" if n > MANY_ABOVE else "few" if n < FEW_BELOW else "medium" for n in counts)
