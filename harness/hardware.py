"""What a run is computed on: device, precision, memory; and its name, for tables that show numbers of other machines."""

import ctypes
import platform
from pathlib import Path

import torch

from imbcil.harness.base.errors import BadInput
from imbcil.harness.network.runtime import native_bf16

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 1 << 30  # bytes
KEPT_BY_OLD_GLIBC = 32 << 20  # the most that MMAP_THRESHOLD may be before glibc 2.35


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB that it freed, for the next batch, where the C library is glibc; elsewhere False.

    By default glibc gives the maps of a large batch back at once, and the system fills their pages with zeros again for
    the next: a twentieth of a run's processor time on two cores.
    """
    try:
        option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    kept = option(MMAP_THRESHOLD, KEPT) or option(MMAP_THRESHOLD, KEPT_BY_OLD_GLIBC)
    return bool(kept and option(TRIM_THRESHOLD, KEPT))


def resolve_device(name: str) -> torch.device:
    """`auto`: the first GPU, else Apple's, else the CPU. Raises BadInput for one that is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise BadInput(f"--device {name}: use auto, cpu, cuda, cuda:NUMBER or mps.")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= count:
        raise BadInput(
            f"--device {name} is not on this machine, which has {count} of kind {kind}; use auto or cpu."
        )
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 where the hardware computes it, else fp32. tf32 is for CUDA alone."""
    if name == "tf32" and device.type != "cuda":
        raise BadInput(f"--precision tf32 needs a CUDA device, not {device.type}; use auto, fp32 or bf16.")
    if name == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return name


def precision_notes(precision: str, device: torch.device) -> list[str]:
    """A sentence where a precision was named that the hardware only emulates; nothing where it fits."""
    if precision != "bf16" or native_bf16(device):
        return []
    return [f"--precision bf16: this {device.type} device emulates it, more slowly than it computes fp32."]


def hardware_name(device: torch.device) -> str:
    """`NVIDIA H200` or `AMD EPYC 7763 64-Core Processor, 2 threads`."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {_count(torch.get_num_threads())}"


def _processor() -> str:
    """The processor's name as the system gives it, else the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine() or "unknown processor"


def _count(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"
