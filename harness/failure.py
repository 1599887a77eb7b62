"""Why a run ended under way, as the one error that its caller sees."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from imbcil.harness.base.errors import ContractViolation, ImbcilError, RunStopped
from imbcil.harness.resolve import Part

OWN = "imbcil."  # modules of ours; a user's file or another package has another name


def ended_by(
    error: BaseException, parts: Sequence[Part], where: str, trained: bool, log: Path
) -> ImbcilError:
    """`error` as an ImbcilError: RunStopped once something was trained, else what refuses the run as bad input.

    parts: learner and plug-ins; where: `phase 1 of 3, epoch 1, step 0`; log: the run's file with the traceback.
    An error that nobody foresaw is named with its line in the user's own file, where it came through one.
    """
    if isinstance(error, RunStopped):
        said = str(error)
        return error if "phase" in said else RunStopped(f"{said} It stopped in {where}.")
    if isinstance(error, ImbcilError):
        return RunStopped(f"{error} It stopped in {where}.") if trained else error
    method = "+".join(part.name for part in parts)
    if isinstance(error, torch.OutOfMemoryError):
        return RunStopped(
            f"The device ran out of memory ({method}) in {where}; try a smaller --set train.batch."
        )
    files = _own_files(parts)
    sentence = (
        f"{method} broke in {where}: {_place(error, files)}{type(error).__name__}: {_first_line(error)}. "
        f"The traceback is in runs/{log.parent.name}/{log.name}."
    )
    return ContractViolation(sentence) if files and not trained else RunStopped(sentence)


def _own_files(parts: Sequence[Part]) -> list[str]:
    """Files of learners and plug-ins that are not this program's."""
    names = [part.kind.__module__ for part in parts if not part.kind.__module__.startswith(OWN)]
    files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    return [file for file in files if file]


def _place(error: BaseException, files: Sequence[str]) -> str:
    """`mine.py, line 7: `: the innermost line of the user's own file, else of whatever raised the error."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    frames = [frame for frame in frames if frame[0] in files] or frames
    return f"{Path(frames[-1][0]).name}, line {frames[-1][1]}: " if frames else ""


def _first_line(error: BaseException) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "no message")
