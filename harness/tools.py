"""Tools: the only door through which a learner reaches images, randomness and the log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbcil.harness.base.randomness import key_seed, torch_generator
from imbcil.harness.batch import Batch, Outputs, Sweep
from imbcil.harness.images import ImageBank
from imbcil.harness.network.network import Network
from imbcil.harness.network.runtime import EVALUATION_BATCH
from imbcil.harness.pools import Pool

Criterion = Callable[[Batch, Tensor, Tensor, slice], Tensor]


class Tools:
    """Given to a learner and its plug-ins by the runner.

    `criterion(batch, logits, targets, classes)` is what `classify` calls, plug-ins included.
    """

    def __init__(self, bank: ImageBank, seed: int, embed: Callable[[Outputs], Tensor]) -> None:
        self._bank = bank
        self._seed = seed
        self._embed = embed
        self.net: Network | None = None  # the learner's own, the default of `sweep`
        self.criterion: Criterion = base_criterion
        self.logged: dict[str, float] = {}
        self.logged_per_class: dict[str, Tensor] = {}

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image."""
        return self._bank.image_bytes

    def gen(self, purpose: str, *key: object) -> torch.Generator:
        """A generator that belongs to this run's seed, the purpose and the key."""
        return torch_generator(self._seed, purpose, *key)

    def log(self, name: str, value: float) -> None:
        """A number about the phase, kept as `phase/<learner>/<name>`."""
        self.logged[name] = value

    def log_per_class(self, name: str, values: Tensor) -> None:
        """One number a class [K] about the phase, kept as a column of `per_class.csv`."""
        self.logged_per_class[name] = values.detach().float().cpu().clone()

    @torch.no_grad()
    def sweep(self, pool: Pool, net: Network | None = None, flip: bool = False) -> Sweep:
        """Evaluate `net` (default: the learner's) on a pool with the test transform, without gradient.

        `flip`: on mirrored images. Features are the learner's `embed`; everything comes back on the CPU.
        """
        network = net or self.net
        assert network is not None
        features, logits = [], []
        with evaluation_mode(network):
            for images, count in self._bank.evaluation_batches(pool.index, EVALUATION_BATCH, flip):
                out = network(images)
                features.append(self._embed(out)[:count].float().cpu())
                logits.append(out.logits[:count].cpu())
        targets = self._bank.targets(pool.index)
        if not features:
            return Sweep(pool, torch.empty(0, network.dim), torch.empty(0, network.n_classes), targets)
        return Sweep(pool, torch.cat(features), torch.cat(logits), targets)

    def grad_batches(self, pool: Pool, size: int, net: Network) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, targets) of a pool in evaluation mode with gradients on; the modes are restored at the end."""
        with evaluation_mode(net), torch.enable_grad():
            for rows in torch.split(torch.arange(len(pool)), size):
                index = pool.index[rows]
                yield self._bank.test_images(index), self._bank.targets(index).to(self._bank.device)


def base_criterion(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
    """Cross-entropy [B] for integer targets in `classes`; element-wise binary cross-entropy [B, K'] for {0, 1}
    targets [B, K]. Targets of rows outside `classes` must be masked by the caller."""
    if targets.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, targets[:, classes], reduction="none")
    return F.cross_entropy(logits, targets - classes.start, reduction="none")


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode; the exact modes of before return at the end."""
    before = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def seeded(*key: object) -> Iterator[None]:
    """torch's default generators seeded by a key and put back afterwards: for initialisers and dropout."""
    devices: list[Any] = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key_seed(*key))
        yield
