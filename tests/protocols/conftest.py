"""Small datasets of a test's own, in the forms that people import."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario, build_scenario
from imbcil.protocols.settings import ProtocolSettings

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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root of the test's own."""
    return tmp_path / "data-root"


@pytest.fixture
def said() -> list[str]:
    """What the code under test says to a person."""
    return []


@pytest.fixture
def import_small(tmp_path: Path, root: Path, said: list[str]) -> Callable[..., Any]:
    """Write an .npz and import it as `small`; keywords replace arrays."""

    def do(name: str = "small", **arrays: Any):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **{**small_arrays(), **arrays})
        return import_dataset(name, path, "auto", root, said.append)

    return do


@pytest.fixture
def scenario_of(root: Path, said: list[str]) -> Callable[..., Scenario]:
    """Build a scenario of the dataset `small` in the test's own data root."""

    def do(**settings: Any) -> Scenario:
        given = {"protocol": "lfs", "dataset": "small", "n_tasks": 3, "order": "ordered", **settings}
        return build_scenario(ProtocolSettings(**given), data_root=root, say=said.append)

    return do


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
