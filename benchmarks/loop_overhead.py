"""Images/s of the harness over a bare hand-written loop: same network, precision and layout, data on the device.

The bare loop has no learner, no keyed draws, no checkpoints and no check of the losses. It is measured twice: with the
recipe's augmentation, which leaves the loop's own overhead; and with the short cut of one crop and flip for a whole
batch, which adds the price of a draw per sample.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from _common import SMALL, Done, harness, in_turns, print_table, ratio_row, timed
from torch import Tensor, nn

from imbcil.harness.augment import augment, normalise
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.runtime import native_bf16
from imbcil.harness.recipes import load_recipe

ROUNDS, CLASSES, MEAN, STD = 9, 40, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
CASES = (
    # backbone, recipe, classes of the measured phase, images of a bare epoch, settings
    ("small", "quick", (40, 60), 4096, SMALL),
    ("resnet32_conv", "paper", (10, 90), 1024, {}),
)


def bare_loop(kind: str, batch: int, n: int, prepare: Callable[[Tensor], Tensor]) -> Callable[[Done], None]:
    """Training as one writes it by hand."""

    def work(done: Done) -> None:
        images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (n,))
        net = build_backbone(kind).to(memory_format=torch.channels_last)
        head = nn.Linear(net.dim, CLASSES)
        parameters = [*net.parameters(), *head.parameters()]
        optimiser = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        bf16 = native_bf16(torch.device("cpu"))

        def epoch() -> int:
            for rows in torch.randperm(len(images)).split(batch):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    features = net(prepare(images[rows]))["features"]
                loss = F.cross_entropy(head(features), labels[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            return len(images)

        epoch()
        while True:
            done(timed(epoch))

    return work


def one_window(images: Tensor) -> Tensor:
    """The short cut: one crop and one flip for the whole batch."""
    x = F.pad(images, (0, 0, 4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2,)).tolist()
    x = x[:, top : top + 32, left : left + 32]
    x = x.flip(2) if torch.rand(()) < 0.5 else x
    return ((x / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def per_sample(recipe: str) -> Callable[[Tensor], Tensor]:
    """The recipe's augmentation, from one generator for all steps."""
    settings, generator = load_recipe(recipe).augment, torch.Generator().manual_seed(0)
    return lambda images: normalise(augment(images, settings, 32, generator), MEAN, STD)


def main() -> None:
    rows = []
    for kind, recipe, sizes, n, own in CASES:
        batch = own.get("train.batch", load_recipe(recipe).train.batch)
        ours = harness(method=["replay"], recipe=recipe, sizes=sizes, compile="off", set=own)
        same, short = (bare_loop(kind, batch, n, prepare) for prepare in (per_sample(recipe), one_window))
        fast, bare, shorter = in_turns(ROUNDS, ours, same, short)
        rows.append(ratio_row(f"{kind}, batch {batch}", fast, bare, ">= 0.95"))
        rows.append(ratio_row("  one window a batch", fast, shorter, ""))
    header = ("network", "harness/s", "bare/s", "ratio", "spread", "asked")
    print_table("Loop overhead: harness over a bare loop", header, rows)


if __name__ == "__main__":
    main()
