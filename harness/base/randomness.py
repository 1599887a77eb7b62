"""Keyed randomness: every draw comes from a generator named by what it is for, never from a global one."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key_seed(*key: object) -> int:
    """A 63-bit seed from the parts of a key, such as ("order", run seed, phase, stage, epoch)."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(*key: object) -> np.random.Generator:
    """A numpy generator that belongs to `key` alone."""
    return np.random.default_rng(key_seed(*key))


def torch_generator(*key: object) -> "torch.Generator":
    """A CPU torch generator that belongs to `key` alone; draw on the CPU, then move, so devices agree."""
    import torch

    return torch.Generator().manual_seed(key_seed(*key))
