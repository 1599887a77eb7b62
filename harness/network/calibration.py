"""The one calibrator type, z -> a z + b on logits, in one block per phase."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from imbcil.harness.base.config import Frozen

Where = Literal["train", "teacher", "test"]


class CalibratorSpec(Frozen):
    """`tie`: one (a, b) a class or one a phase. `condition` "argmax_new": apply only where the raw argmax is a
    class of the latest phase. `active`: where the calibrated logits are used."""

    tie: Literal["class", "phase"] = "class"
    condition: Literal["argmax_new"] | None = None
    active: tuple[Where, ...] = ("test",)


class CalibratorBlock(nn.Module):
    """a and b of one phase's classes, [k] or, tied, [1]; starts at identity."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(values))
        self.b = nn.Parameter(torch.zeros(values))


class Calibrator(nn.Module):
    """z -> a z + b with a and b per class or per phase: LWS, BiC, IL2M."""

    def __init__(self, spec: CalibratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList()
        self.splits: list[int] = []

    def grow(self, classes: int) -> None:
        block = CalibratorBlock(1 if self.spec.tie == "phase" else classes)
        self.blocks.append(block.to(self.vectors()[0]) if len(self.blocks) else block)
        self.splits.append(classes)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """(a [K], b [K]) over all classes."""
        return self._joined("a"), self._joined("b")

    def _joined(self, name: str) -> Tensor:
        blocks: Iterable[Tensor] = (getattr(block, name) for block in self.blocks)
        return torch.cat([value.expand(size) for value, size in zip(blocks, self.splits, strict=True)])

    @torch.no_grad()
    def set(self, a: Tensor | None = None, b: Tensor | None = None) -> None:
        """Write per-class values [K] into the blocks; tied blocks take the first value of their range."""
        start = 0
        for block, size in zip(self.blocks, self.splits, strict=True):
            for name, value in (("a", a), ("b", b)):
                if value is not None:
                    target = getattr(block, name)
                    target.copy_(value[start : start + target.numel()])
            start += size

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated logits [B, K]."""
        a, b = self.vectors()
        calibrated = logits * a + b
        if self.spec.condition is None:
            return calibrated
        newest = logits.shape[1] - self.splits[-1]
        return torch.where((logits.argmax(dim=1) >= newest).unsqueeze(1), calibrated, logits)
