"""A learner on its tiny network without a run around it, and batches made by hand: for tests of formulas."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from imbcil.harness.base.config import validated
from imbcil.harness.base.registry import load_learner
from imbcil.harness.batch import Batch
from imbcil.harness.contract import Learner
from imbcil.harness.memory import Memory
from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.settings import MemorySettings
from imbcil.harness.tools import Tools

TINY = NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind="linear"))


def bare(name: str, *splits: int, seed: int = 0, **settings: Any) -> Learner:
    """The learner `name` with a network for phases of `splits` classes, freshly drawn."""
    kind = load_learner(name)
    learner: Learner = kind(validated(kind.Config, settings, name), name)
    torch.manual_seed(seed)
    learner.state["net"] = Network(learner.design(TINY), Runtime())
    bank: Any = SimpleNamespace(image_bytes=192)
    learner.tools = Tools(bank, seed, learner.embed)
    learner.memory = Memory(MemorySettings(budget="4/class"))
    for classes in splits:
        learner.net.grow(classes)
    return learner


def a_batch(targets: list[int], n_classes: int, counts: list[float] | None = None, seed: int = 1) -> Batch:
    """8 x 8 images of noise with these targets; `counts` defaults to 4 a class."""
    size, generator = len(targets), torch.Generator().manual_seed(seed)
    nothing: Tensor = torch.zeros(size, dtype=torch.int64)
    return Batch(
        images=torch.randn(size, 3, 8, 8, generator=generator), targets=torch.tensor(targets), mask=None,
        index=nothing, slot=nothing - 1, stream=nothing, counts=torch.tensor(counts or [4.0] * n_classes),
        stage="train", epoch=0, step=0, steps=1, total=1,
    )  # fmt: skip
