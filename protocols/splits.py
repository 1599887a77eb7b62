"""How many classes each phase brings. Torch-free and numpy-free: `list` reads the rules from here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.installed import installed

if TYPE_CHECKING:
    from imbcil.protocols.settings import ProtocolSettings


@dataclass(frozen=True)
class ProtocolRule:
    """One protocol: its default split. Another package adds one by the entry-point group `imbcil.protocols`."""

    name: str
    summary: str
    base: Callable[[int], int]  # number of classes -> classes of the first phase; 0: as many as in the others
    n_tasks: int = 10  # phases when nothing is said (after the base, where there is one)
    dataset: str = "glyphs100-lt"
    order: str = "shuffled"
    label_kind: str = "single"  # single, multi, or any: as the dataset has them
    one_phase: bool = False  # all classes at once; no key may split them


RULES: Mapping[str, ProtocolRule] = {
    rule.name: rule
    for rule in (
        ProtocolRule(
            "lfs", "learning from scratch: N equal phases, a remainder to the earliest", lambda _: 0
        ),
        ProtocolRule("lfh", "learning from half of the classes, then N equal phases", lambda n: (n + 1) // 2),
        ProtocolRule(
            "mlcil",
            "several labels an image: --split B10-C2 is 10 classes, then 2 a phase; B0-C4 is 4 a phase",
            lambda _: 0,
            n_tasks=5,
            dataset="glyphs20-ml",
            order="ordered",
            label_kind="multi",
        ),
        ProtocolRule(
            "static",
            "all classes in one phase, as long-tailed recognition trains",
            lambda n: n,
            n_tasks=1,
            label_kind="any",
            one_phase=True,
        ),
    )
}
_SPLIT = re.compile(r"[Bb](\d{1,4})-?[Cc](\d{1,4})")


def parse_split(text: str) -> tuple[int, int]:
    """`B10-C2` -> (10, 2): classes of the base and of each phase after it; `B0-C4`: all phases alike.

    Raises BadInput for anything else.
    """
    match = _SPLIT.fullmatch(text.strip())
    if match is None or int(match[2]) < 1:
        raise BadInput(f"split = {text}: write B10-C2 (10 classes, then 2 a phase) or B0-C4 (4 a phase).")
    return int(match[1]), int(match[2])


def protocol_rule(name: str) -> ProtocolRule:
    """The rule called `name`. Raises UnknownName with the nearest names."""
    rules = _all_rules()
    if name not in rules:
        raise UnknownName("protocol", name, sorted(rules))
    return rules[name]


def protocol_names() -> list[str]:
    """Every protocol, sorted: our own and those of installed packages."""
    return sorted(_all_rules())


def _all_rules() -> dict[str, ProtocolRule]:
    rules = dict(RULES)
    for entry in installed("imbcil.protocols"):
        if entry.name not in rules:
            rules[entry.name] = entry.load()
    return rules


def equal_parts(total: int, parts: int) -> tuple[int, ...]:
    """`total` classes in `parts` phases, a remainder to the earliest: 101 in 10 is 11, 10, 10, ..."""
    if parts < 1:
        raise BadInput(f"n_tasks = {parts}: a protocol needs at least one phase.")
    if parts > total:
        raise BadInput(f"n_tasks = {parts}: there are only {total} classes for these phases; ask for fewer.")
    share, rest = divmod(total, parts)
    return tuple(share + (index < rest) for index in range(parts))


def phase_sizes(settings: "ProtocolSettings", n_classes: int) -> tuple[int, ...]:
    """Classes per phase, in order; they sum to `n_classes`. Raises BadInput for an impossible split."""
    rule = protocol_rule(settings.protocol)
    if rule.one_phase:
        return _one_phase(settings, n_classes)
    if settings.sizes is not None:
        return _explicit_sizes(settings, n_classes)
    base = rule.base(n_classes) if settings.base is None else settings.base
    if not 0 <= base <= n_classes:
        raise BadInput(f"base = {base}: it must lie between 0 and the {n_classes} classes of the dataset.")
    rest = n_classes - base
    head = (base,) if base else ()
    if settings.step is not None:
        return head + _steps(settings, rest)
    if not rest and settings.n_tasks is None:
        return head
    return head + equal_parts(rest, rule.n_tasks if settings.n_tasks is None else settings.n_tasks)


def _one_phase(settings: "ProtocolSettings", n_classes: int) -> tuple[int, ...]:
    for key in ("n_tasks", "base", "step", "sizes"):
        if getattr(settings, key) not in (None, 1 if key == "n_tasks" else None):
            raise BadInput(
                f"{key} splits the classes, and {settings.protocol} trains on all of them in one phase; leave it out."
            )
    return (n_classes,)


def _explicit_sizes(settings: "ProtocolSettings", n_classes: int) -> tuple[int, ...]:
    sizes = settings.sizes or ()
    for key in ("n_tasks", "base", "step"):
        if getattr(settings, key) is not None:
            raise BadInput(f"sizes and {key} both say how classes are split; give one of them.")
    if not sizes or min(sizes) < 1:
        raise BadInput(f"sizes = {_joined(sizes)}: every phase needs at least one class.")
    if sum(sizes) != n_classes:
        raise BadInput(
            f"sizes = {_joined(sizes)}: they sum to {sum(sizes)}, the dataset has {n_classes} classes."
        )
    return sizes


def _steps(settings: "ProtocolSettings", rest: int) -> tuple[int, ...]:
    step = settings.step or 0
    if settings.n_tasks is not None:
        raise BadInput("step and n_tasks both say how classes are split; give one of them.")
    if step < 1 or step > rest:
        raise BadInput(f"step = {step}: it must lie between 1 and the {rest} classes that are left for it.")
    full, last = divmod(rest, step)
    return (step,) * full + ((last,) if last else ())


def column_name(settings: "ProtocolSettings", sizes: tuple[int, ...]) -> str:
    """How tables call the split: `lfs-10`, `lfh-5`, `mlcil-B10-C2`, and `sizes-50-5x10` for a free one."""
    if protocol_rule(settings.protocol).label_kind == "multi":
        return f"{settings.protocol}-{_base_and_step(sizes)}"
    if settings.sizes is None and settings.base is None and settings.step is None:
        rule = protocol_rule(settings.protocol)
        return f"{settings.protocol}-{rule.n_tasks if settings.n_tasks is None else settings.n_tasks}"
    return _written_out(sizes)


def _base_and_step(sizes: tuple[int, ...]) -> str:
    """`B10-C2` where the phases after the first are alike (B0 where all are), else the sizes."""
    later = set(sizes[1:])
    if len(later) > 1:
        return _written_out(sizes)
    step = later.pop() if later else sizes[0]
    return f"B{0 if sizes[0] == step else sizes[0]}-C{step}"


def _written_out(sizes: tuple[int, ...]) -> str:
    runs = [(size, len(list(group))) for size, group in groupby(sizes)]
    return "sizes-" + "-".join(f"{count}x{size}" if count > 1 else str(size) for size, count in runs)


def _joined(sizes: tuple[int, ...]) -> str:
    return ",".join(str(size) for size in sizes) or "(empty)"
