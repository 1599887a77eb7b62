"""How networks are executed in a run: device, precision, compilation. Holds nothing that training changes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

EVALUATION_BATCH = 500  # images of at most 80 pixels
EVALUATION_PIXELS = EVALUATION_BATCH * 80**2


def evaluation_batch(size: int) -> int:
    """Images of `size` pixels in an evaluation batch; all are padded to it, so that one graph serves all."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // size**2))


@dataclass
class Runtime:
    """Shared by all networks of a run. `compile_sizes`: batch sizes that run compiled; all others run eagerly,
    so that the choice follows from the shape alone and a resumed run makes the same one."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
    compiled: bool = False
    compile_sizes: frozenset[int] = frozenset({EVALUATION_BATCH})
    _functions: dict[type, Callable[..., dict[str, Any]]] = field(default_factory=dict)

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast around trunk and backbones; heads and losses stay in float32."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def backbone(self, module: nn.Module, images: Tensor) -> dict[str, Any]:
        """Run a backbone, compiled once per class: copies (teacher, student) and grown heads reuse the graphs."""
        if not self.compiled or images.shape[0] not in self.compile_sizes:
            result: dict[str, Any] = module(images)
            return result
        kind = type(module)
        if kind not in self._functions:
            self._functions[kind] = torch.compile(kind.forward, dynamic=False)
        return self._functions[kind](module, images)


def set_compile_limits() -> None:
    """Allow the handful of graphs that a run needs (train, eval, frozen, teacher, per batch size)."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware: most GPUs, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags = (
            getattr(torch.cpu, "_is_avx512_bf16_supported", None),
            getattr(torch.cpu, "_is_amx_tile_supported", None),
        )
        return any(flag() for flag in flags if flag is not None)
    return False
