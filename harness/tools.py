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
from imbcil.harness.labels import LabelFirewall
from imbcil.harness.losses import visible_bce
from imbcil.harness.memory import Memory
from imbcil.harness.network.network import Network
from imbcil.harness.network.runtime import evaluation_batch
from imbcil.harness.pools import Pool

Criterion = Callable[[Batch, Tensor, Tensor, slice], Tensor]


class Tools:
    """Given to a learner and its plug-ins by the runner.

    `criterion(batch, logits, targets, classes)` is what `classify` calls, plug-ins included. With several labels an
    image, `firewall` decides what of them is seen; `memory` is the learner's.
    """

    def __init__(
        self,
        bank: ImageBank,
        seed: int,
        embed: Callable[[Outputs], Tensor],
        firewall: LabelFirewall | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._bank = bank
        self._firewall = firewall
        self._memory = memory
        self._seed = seed
        self._embed = embed
        self.net: Network | None = None  # the learner's own, the default of `sweep`
        self.criterion: Criterion = base_criterion
        self.logged: dict[str, float] = {}
        self.logged_per_class: dict[str, Tensor] = {}

    @property
    def multi(self) -> bool:
        """Whether an image may have several labels."""
        return self._firewall is not None

    @property
    def pseudo_labels(self) -> bool:
        """Whether the old columns of new images are filled by the learner (`labels.policy: pseudo_old`)."""
        return self._firewall is not None and self._firewall.policy == "pseudo_old"

    @property
    def pseudo_threshold(self) -> float:
        """`labels.threshold`: above it, a teacher's probability counts as a positive."""
        return 0.5 if self._firewall is None else self._firewall.threshold

    def targets(self, pool: Pool) -> tuple[Tensor, Tensor | None]:
        """Labels of a pool (CPU): ids [N] and None, or float32 [N, K], NaN where hidden, and the mask [N, K]."""
        if self._firewall is None:
            return self._bank.targets(pool.index), None
        assert self._memory is not None
        return self._firewall.view(pool, self._memory)

    def labels(self, pool: Pool, classes: slice) -> Tensor:
        """Labels of columns `classes` [N, K'] where every cell is visible. Raises PermissionError where one is not."""
        targets, mask = self.targets(pool)
        span = range(*classes.indices(max(classes.stop or 0, targets.shape[1])))
        if mask is None or span.stop > targets.shape[1] or not bool(mask[:, classes].all()):
            raise PermissionError(
                f"Columns {span.start} to {span.stop - 1} are not visible in every one of these rows."
            )
        return targets[:, classes]

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
            for images, count in self._bank.evaluation_batches(
                pool.index, evaluation_batch(self._bank.size), flip
            ):
                out = network(images)
                features.append(self._embed(out)[:count].float().cpu())
                logits.append(out.logits[:count].cpu())
        targets, mask = self.targets(pool)
        if not features:
            return Sweep(pool, torch.empty(0, network.dim), torch.empty(0, network.n_classes), targets, mask)
        return Sweep(pool, torch.cat(features), torch.cat(logits), targets, mask)

    def grad_batches(self, pool: Pool, size: int, net: Network) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, targets) of a pool in evaluation mode with gradients on; the modes are restored at the end.
        Targets as in a batch; with several labels an image, hidden cells are NaN."""
        with evaluation_mode(net), torch.enable_grad():
            for rows in torch.split(torch.arange(len(pool)), size):
                part = pool[rows]
                yield self._bank.test_images(part.index), self.targets(part)[0].to(self._bank.device)


def base_criterion(batch: Batch, logits: Tensor, targets: Tensor, classes: slice) -> Tensor:
    """Cross-entropy [B] for integer targets in `classes`, which the caller must see to; element-wise binary
    cross-entropy [B, K'] for targets [B, K] in 0..1, zero in the cells that are hidden (NaN)."""
    if targets.is_floating_point():
        return visible_bce(logits, targets[:, classes])
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
