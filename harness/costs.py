"""What a phase cost: seconds, images a second, memory. Kept apart (`cost/*`), for it may differ between runs."""

import resource
import sys
from typing import Any

import torch


class Costs:
    """Counts over one phase, restarts included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.train_s = 0.0
        self.end_s = 0.0
        self.evaluation_s = 0.0
        self.images = 0
        self.trained_images = 0

    def metrics(self, parameters: int, exemplars: int, image_bytes: int) -> dict[str, float]:
        """`cost/*` of the phase."""
        return {
            "cost/train_s": self.train_s,
            "cost/end_s": self.end_s,
            "cost/evaluation_s": self.evaluation_s,
            "cost/images_per_s": self.trained_images / self.train_s if self.train_s else 0.0,
            "cost/peak_mem_mb": peak_memory_mb(self.device),
            "cost/params": float(parameters),
            "cost/exemplars": float(exemplars),
            "cost/exemplars_mb": exemplars * image_bytes / 1e6,
        }

    def to_state(self) -> dict[str, Any]:
        return {
            "train_s": self.train_s, "end_s": self.end_s, "evaluation_s": self.evaluation_s,
            "images": self.images, "trained_images": self.trained_images,
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory use so far in MB: of the GPU's allocator, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes on macOS, kilobytes elsewhere
