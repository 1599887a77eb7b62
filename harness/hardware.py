"""What a run was computed on, in words, for tables that show numbers from other machines; and its memory."""

import ctypes
import platform
from pathlib import Path

import torch

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
