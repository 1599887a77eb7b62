"""Images/s of the harness over a bare hand-written loop: same network, precision and layout, data on the device.

The bare loop takes short cuts that the harness does not: one crop and flip for a whole batch, draws from the global
generator, no checkpoints, no check of the losses, no learner.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from _common import Done, harness, in_turns, print_table, ratio_row, timed
from torch import nn

from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.runtime import native_bf16

ROUNDS, CLASSES = 7, 40
CASES = (
    # backbone, recipe, batch, classes of the measured phase, images of a bare epoch
    ("small", "quick", 64, (40, 60), 4096),
    ("resnet32_conv", "paper", 128, (10, 90), 1024),
)


def bare_loop(kind: str, batch: int, n: int) -> Callable[[Done], None]:
    """Training as one writes it by hand, 30 lines."""

    def work(done: Done) -> None:
        images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (n,))
        mean, std = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.2, 0.2, 0.2])
        net = build_backbone(kind).to(memory_format=torch.channels_last)
        head = nn.Linear(net.dim, CLASSES)
        parameters = [*net.parameters(), *head.parameters()]
        optimiser = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        bf16 = native_bf16(torch.device("cpu"))

        def epoch() -> int:
            for rows in torch.randperm(len(images)).split(batch):
                x = F.pad(images[rows], (0, 0, 4, 4, 4, 4))
                top, left = torch.randint(0, 9, (2,)).tolist()
                x = x[:, top : top + 32, left : left + 32]
                x = x.flip(2) if torch.rand(()) < 0.5 else x
                x = ((x / 255 - mean) / std).permute(0, 3, 1, 2)
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    features = net(x)["features"]
                loss = F.cross_entropy(head(features), labels[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            return len(images)

        epoch()
        while True:
            done(timed(epoch))

    return work


def main() -> None:
    rows = []
    for kind, recipe, batch, sizes, n in CASES:
        ours = harness(method=["replay"], recipe=recipe, sizes=sizes, compile="off")
        fast, bare = in_turns(ROUNDS, ours, bare_loop(kind, batch, n))
        rows.append(ratio_row(f"{kind}, batch {batch}", fast, bare, ">= 0.95"))
    print_table(
        "Loop overhead: harness over a bare loop",
        ("network", "harness/s", "bare/s", "ratio", "spread", "asked"),
        rows,
    )


if __name__ == "__main__":
    main()
