"""Whether a run's backbones are compiled: decided once, from its planned steps, and part of its identity."""

import shutil

import torch

from imbcil.harness.base.errors import BadInput

# (seconds that compiling costs, seconds that it saves an image), ResNet-32 at batch 128. On two CPU cores with
# torch 2.15, channels_last: fp32 333 -> 353 images/s a core; bf16 514 -> 456, so compiling never pays there.
# CUDA is an estimate: small networks are bound by kernel launches.
PRICE = {("cpu", "fp32"): (70.0, 1.7e-4), ("cuda", "fp32"): (60.0, 3e-5), ("cuda", "tf32"): (60.0, 3e-5),
         ("cuda", "bf16"): (60.0, 3e-5)}  # fmt: skip


def decide_compilation(asked: str, device: torch.device, precision: str, images: int) -> bool:
    """`on` and `off` are obeyed; `auto` compiles where `images` through the backbone save more time than it costs.

    Raises BadInput for `on` where it cannot work.
    """
    able = device.type == "cuda" or (device.type == "cpu" and _has_compiler())
    if asked == "on" and not able:
        raise BadInput(
            f"--compile on cannot work here: {device.type} lacks a compiler (g++); use --compile off."
        )
    if asked != "auto":
        return asked == "on"
    cost, saving = PRICE.get((device.type, precision), (float("inf"), 0.0))
    return able and images * saving > cost


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))
