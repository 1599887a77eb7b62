"""The small hierarchy of errors that reach a user as one sentence."""

from collections.abc import Sequence
from difflib import get_close_matches


class ImbcilError(Exception):
    """Bad input: the message names what is wrong and what to do. The command line exits with 2."""

    exit_code = 2


class BadInput(ImbcilError):
    """A file, key or value that cannot be used; nothing was trained."""


class NotDefined(BadInput):
    """A learner and plug-ins that the contract does not let be combined; the message names them, the slot, the way out."""


class UnknownName(BadInput):
    """A name that nothing answers to; the message suggests the nearest known ones, or of other `forms` of them."""

    def __init__(self, kind: str, name: str, known: Sequence[str], forms: Sequence[str] = ()) -> None:
        super().__init__(f"There is no {kind} called {name!r}; {did_you_mean(name, known, forms)}.")


class MissingData(BadInput):
    """Images or labels that are not on this machine; the message says which file is wanted where."""


class ContractViolation(ImbcilError):
    """A learner or plug-in that breaks the contract; the message names it and the rule."""


class RunStopped(ImbcilError):
    """A run that ended under way (non-finite loss, full disk, ...); the last checkpoint stays."""

    exit_code = 1


def did_you_mean(name: str, known: Sequence[str], forms: Sequence[str] = ()) -> str:
    """The end of an error's sentence: the nearest of `known` and `forms`, whatever their case, or all that are known
    when none is near."""
    folded = {each.casefold(): each for each in (*forms, *known)}
    close = get_close_matches(name.casefold(), folded, n=2)
    if close:
        return f"did you mean {' or '.join(folded[match] for match in close)}"
    return f"known: {', '.join(known)}" if known else "none are known"
