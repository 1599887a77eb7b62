"""Several labels an image: the loop over a plain PIL DataLoader, average precision, and greedy choices of exemplars.

The loop trains by recipe `krt` (Cutout, then RandAugment, Adam) on 64 pixels. Today's way decodes a JPEG file anew for
each image, resizes it, pastes a rectangle, and applies as many operations of torchvision's RandAugment as KRT's package
does on average, one of them.
"""

import io
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from _common import Done, against_todays_way, clock, harness, loader_loop, print_table
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from imbcil.baselines.ocdm import nearest
from imbcil.baselines.prs import partitioned
from imbcil.harness.multilabel_metrics import per_class_ap

ROUNDS, IMAGES, CLASSES, BATCH, SIZE = 3, 1024, 10, 64, 64
BACKBONES = ("small", "resnet18")
COCO = (40_137, 80)  # test images with a label, classes
OFFERED, ROOM, TOGETHER = 20_000, 1000, 12


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """JPEG files in memory, 216 pixels wide; a patch and RandAugment by PIL, one image at a time."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        smooth = draw.integers(0, 256, (IMAGES, 27, 20, 3), dtype=np.uint8)
        self.files = [_jpeg(Image.fromarray(image).resize((216, 162))) for image in smooth]
        self.labels = torch.from_numpy((draw.random((IMAGES, CLASSES)) < 0.15).astype(np.float32))
        self.draw = draw
        self.operation = transforms.RandAugment(num_ops=1)
        self.to_tensor = transforms.ToTensor()

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = Image.open(io.BytesIO(self.files[index])).convert("RGB").resize((SIZE, SIZE))
        x, y = self.draw.integers(0, SIZE, 2).tolist()
        half, colour = SIZE // 4, tuple(self.draw.integers(0, 256, 3).tolist())
        ImageDraw.Draw(picture).rectangle((x - half, y - half, x + half, y + half), fill=colour)
        return self.to_tensor(self.operation(picture)), self.labels[index]


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def todays_way(backbone: str) -> Callable[[int], Callable[[Done], None]]:
    """The job for a number of worker processes."""
    return lambda workers: loader_loop(
        Pictures(),
        workers,
        BATCH,
        backbone,
        CLASSES,
        F.binary_cross_entropy_with_logits,
        lambda parameters: torch.optim.Adam(parameters, lr=4e-5, weight_decay=1e-4),
    )


def loops(backbone: str) -> None:
    """The base phase of B10-C2 on embedded data."""
    ours = harness(
        protocol="mlcil", base=10, step=2, method=["replay"], recipe="krt", compile="off",
        set={"data.size": SIZE, "data.resize": SIZE, "backbone.name": backbone},
    )  # fmt: skip
    title = (
        f"{backbone}, {SIZE} pixels, batch {BATCH}, Cutout and RandAugment: harness over PIL and DataLoader"
    )
    against_todays_way(ROUNDS, title, {"harness": ours}, todays_way(backbone), "")


def seconds(work: Callable[[], object]) -> float:
    started = clock()
    work()
    return clock() - started


def precision_and_choices() -> None:
    """Seconds of work that has no counterpart in today's way."""
    draw = np.random.default_rng(0)
    scores = draw.normal(size=COCO).astype(np.float32)
    targets = (draw.random(COCO) < 0.036).astype(np.uint8)
    chances = 0.5 * 0.93 ** np.arange(COCO[1])
    labels = draw.random((OFFERED, COCO[1])) < chances
    labels[np.arange(OFFERED), draw.choice(COCO[1], OFFERED, p=chances / chances.sum())] = True
    draws = draw.random((OFFERED, 2))

    def prs() -> None:
        partitioned(labels, 0, ROOM, np.zeros(COCO[1]), draws, -0.03)

    def ocdm() -> None:
        seen, rows = np.zeros(COCO[1]), list[int]()
        for start in range(0, OFFERED, TOGETHER):
            fresh = range(start, min(start + TOGETHER, OFFERED))
            seen += labels[list(fresh)].sum(axis=0)
            rows = nearest(labels, [*rows, *fresh], ROOM, seen, 0.0, draws[:, 0])

    rows = [
        (
            f"average precision, {COCO[1]} classes x {COCO[0]:,} images",
            f"{seconds(lambda: per_class_ap(scores, targets)):.2f}",
            "< 1",
        ),
        (f"PRS, {ROOM:,} of {OFFERED:,} rows", f"{seconds(prs):.2f}", "< 10"),
        (f"OCDM, {ROOM:,} of {OFFERED:,} rows, {TOGETHER} offered at once", f"{seconds(ocdm):.2f}", "< 10"),
    ]
    print_table("Metrics and greedy choices", ("what", "seconds", "asked"), rows)


def main() -> None:
    precision_and_choices()
    for backbone in sys.argv[1:] or BACKBONES:
        loops(backbone)


if __name__ == "__main__":
    main()
