"""Small datasets of a test's own, in the forms that people import."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

N_CLASSES, PER_CLASS, PER_CLASS_TEST = 6, 40, 5


def small_arrays(seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    """Six classes of 40 training and 5 test images, rows in mixed order."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", PER_CLASS), ("test", PER_CLASS_TEST)):
        labels = generator.permutation(np.repeat(np.arange(N_CLASSES), count))
        arrays[f"x_{split}"] = generator.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = labels
    return arrays


def save_picture(
    path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (12, 9)
) -> None:
    """A plain picture; width and height differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_tree(folder: Path, counts: Mapping[str, int], test: str = "test", per_test: int = 2) -> Path:
    """`folder`/train/CLASS and `folder`/test/CLASS; image i of class c has the colour (c, i, 7)."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            save_picture(folder / "train" / name / f"{index:03d}.png", (number, index, 7))
        for index in range(per_test):
            save_picture(folder / test / name / f"{index:03d}.png", (number, index, 9))
    return folder
