"""Images/s of the harness over what people run today: eager float32, NCHW, PIL transforms in a DataLoader.

Both train ResNet-32 on batches of 128 with LT-CIL's augmentation. The loader is given with and without worker
processes; the ratio is over the faster of the two. Compilation is paid in the warm-up epoch.
"""

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from _common import CPU_CLOCK, Done, harness, in_turns, print_table, ratio_row, timed
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from imbcil.harness.network.backbones import build_backbone
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


def loader_loop(workers: int) -> Callable[[Done], None]:
    """The usual training loop around a DataLoader."""

    def work(done: Done) -> None:
        loader = DataLoader(
            Pictures(), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        net = build_backbone("resnet32_conv")
        head = nn.Linear(net.dim, CLASSES)
        optimiser = torch.optim.SGD(
            [*net.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4
        )

        def epoch() -> int:
            for images, labels in loader:
                loss = F.cross_entropy(head(net(images)["features"]), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            return IMAGES

        epoch()
        while True:
            done(timed(epoch))

    return work


def main() -> None:
    settings = {"method": ["replay"], "recipe": "paper", "sizes": (10, 90)}
    asked = ">= 3" if native_bf16(torch.device("cpu")) else ">= 1.6"
    workers = (0,) if CPU_CLOCK else (0, 2)
    ours = {f"harness, {name}": harness(**settings, compile=flag) for name, flag in MODES}
    today = {f"DataLoader, {count} workers": loader_loop(count) for count in workers}
    rates = dict(zip((*ours, *today), in_turns(ROUNDS, *ours.values(), *today.values()), strict=True))
    faster = max(today, key=lambda name: median(rates[name]))
    rows = [ratio_row(f"{name} / {faster}", rates[name], rates[faster], asked) for name in ours]
    header = ("harness / today's way", "harness/s", "today/s", "ratio", "spread", "asked")
    print_table("ResNet-32, batch 128: harness over PIL and DataLoader in float32", header, rows)


if __name__ == "__main__":
    main()
