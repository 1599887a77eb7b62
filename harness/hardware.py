"""What a run was computed on, in words: for tables that show numbers from other machines."""

import platform
from pathlib import Path

import torch


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
