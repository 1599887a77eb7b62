"""Image banks: uint8 images on the run's device where they fit, else read from the memory-mapped cache."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbcil.harness.augment import augment, normalise, test_view
from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.settings import AugmentSettings

HELD_AT_MOST = 1 << 30  # bytes of images kept on the device; beyond it they are read from the cache
SHARE_OF_GPU = 0.25  # of a GPU's free memory, where that is more


def held_at_most(device: torch.device) -> int:
    """Bytes of images that may be kept on the device."""
    if device.type != "cuda":
        return HELD_AT_MOST
    return max(HELD_AT_MOST, int(SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]))


class ImageBank:
    """The images of one split that a run uses. Rows are the dataset's; targets are arrival ids.

    array [N, H, W, 3] uint8 (may be memory-mapped), labels [N] int64, rows: the dataset rows that may be asked
    for. `size`: pixels of the network's input; mean and std in 0..1 per channel.
    """

    def __init__(
        self,
        array: NDArray[np.uint8],
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        *,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        augmentation: AugmentSettings,
    ) -> None:
        self.device = device
        self.size = size
        self.mean = mean
        self.std = std
        self.augmentation = augmentation
        self._labels = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        self._array = array
        self._held: Tensor | None = None
        rows = np.unique(rows)
        self._place = torch.full((len(array),), -1, dtype=torch.int64)
        self._place[torch.from_numpy(rows)] = torch.arange(len(rows))
        if len(rows) * int(np.prod(array.shape[1:])) <= held_at_most(device):
            self._held = torch.from_numpy(np.ascontiguousarray(array[rows])).to(device)

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image."""
        return int(np.prod(self._array.shape[1:]))

    def targets(self, index: Tensor) -> Tensor:
        """Arrival ids [B] of dataset rows (CPU)."""
        return self._labels[index]

    def raw(self, index: Tensor) -> Tensor:
        """uint8 images [B, H, W, 3] on the device. Raises ContractViolation for a row that the run has not."""
        place = self._place[index]
        if bool((place < 0).any()):  # indices live on the CPU: this waits for no device
            row = int(index[place < 0][0])
            raise ContractViolation(f"Row {row} was asked for, which is no image of this run's phases.")
        if self._held is not None:
            return self._held[place.to(self.device)]
        return torch.from_numpy(self._array[index.numpy()]).to(self.device)

    def train_images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, normalised images [B, 3, S, S]; the draws come from `generator` alone."""
        return normalise(
            augment(self.raw(index), self.augmentation, self.size, generator), self.mean, self.std
        )

    def test_images(self, index: Tensor, flip: bool = False) -> Tensor:
        """Normalised images [B, 3, S, S] in the test view, mirrored if asked."""
        images = normalise(test_view(self.raw(index), self.size), self.mean, self.std)
        return images.flip(3) if flip else images

    def evaluation_batches(
        self, index: Tensor, batch: int, flip: bool = False
    ) -> Iterator[tuple[Tensor, int]]:
        """(images, how many of them count). The last batch is filled up with repeats, so that one compiled
        graph serves all of them and a row's result does not depend on where the pool ends."""
        for part in torch.split(index, batch) if len(index) else ():
            filled = part if len(part) == batch else torch.cat([part, part[-1:].expand(batch - len(part))])
            yield self.test_images(filled, flip), len(part)
