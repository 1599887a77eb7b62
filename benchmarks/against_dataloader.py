"""Images/s of the harness over what people run today: eager float32, NCHW, PIL transforms in a DataLoader.

Both train ResNet-32 on batches of 128 with LT-CIL's augmentation. The loader is given with and without worker
processes; the ratio is over the faster of the two. Compilation is paid in the warm-up epoch.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from _common import Done, against_todays_way, harness, loader_loop
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from imbcil.harness.network.runtime import native_bf16

ROUNDS, BATCH, IMAGES, CLASSES = 5, 128, 1024, 10
MODES = (("eager", "off"), ("compiled", "on"))


class Pictures(Dataset[tuple[Tensor, int]]):
    """Arrays to PIL, PIL transforms, tensors: one image at a time."""

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
        self.transform = transforms.Compose(
            [
                transforms.Pad(4),
                transforms.RandomResizedCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)),
            ]
        )

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % CLASSES


def todays_way(workers: int) -> Callable[[Done], None]:
    """ResNet-32 by SGD around a DataLoader of `workers` processes."""
    return loader_loop(
        Pictures(),
        workers,
        BATCH,
        "resnet32_conv",
        CLASSES,
        F.cross_entropy,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4),
    )


def main() -> None:
    settings = {"method": ["replay"], "recipe": "paper", "sizes": (10, 90)}
    asked = ">= 3" if native_bf16(torch.device("cpu")) else ">= 1.6"
    ours = {f"harness, {name}": harness(**settings, compile=flag) for name, flag in MODES}
    title = "ResNet-32, batch 128: harness over PIL and DataLoader in float32"
    against_todays_way(ROUNDS, title, ours, todays_way, asked)


if __name__ == "__main__":
    main()
