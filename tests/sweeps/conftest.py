"""A dataset and a recipe so small that a whole sweep takes seconds, also in processes of its own."""

from pathlib import Path

import numpy as np
import pytest

RECIPE = """
name: tiny
reduced: true
backbone: {name: tiny}
augment: {crop: pad, pad: 1, flip: true}
memory: {budget: 4/class}
train: {epochs: 2, batch: 8, lr: 0.05, schedule: cosine}
"""
BROKEN = """
from imbcil.baselines.replay import Replay

class Broken(Replay):
    def begin_phase(self, phase):
        super().begin_phase(phase)
        print("a learner's own words")
        if phase.index == 1:
            FAULT
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the dataset `dots` imported and `tiny.yaml` as its recipe."""
    from imbcil.protocols.library import import_dataset

    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256, (4, 8, 8, 3))

    def images(labels: np.ndarray) -> np.ndarray:
        return np.clip(patterns[labels] + generator.normal(0, 30, (len(labels), 8, 8, 3)), 0, 255).astype(
            np.uint8
        )

    train, test = np.repeat(np.arange(4), 12), np.repeat(np.arange(4), 4)
    path = tmp_path / "dots.npz"
    np.savez(path, x_train=images(train), y_train=train, x_test=images(test), y_test=test)
    monkeypatch.setenv("IMBCIL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    import_dataset("dots", path, "npz", None, lambda line: None)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def write_suite(folder: Path):
    """`write_suite("replay", "icarl")`: a suite of these rows on two phases of `dots`; its path."""

    def write(*rows: str, columns: int = 1, seeds: str = "[0]") -> str:
        lines = ["recipe: ./tiny.yaml", f"seeds: {seeds}", "columns:"]
        lines += [
            f"  - {{protocol: lfs, n_tasks: {2 * (number + 1)}, dataset: dots}}" for number in range(columns)
        ]
        lines += [
            "rows:",
            *(f"  - {row if row.startswith('{') else '{method: ' + row + '}'}" for row in rows),
        ]
        (folder / "mine.yaml").write_text("\n".join(lines) + "\n")
        return "./mine.yaml"

    return write


@pytest.fixture
def broken(folder: Path):
    """`broken("name", "raise ValueError('no')")`: a learner whose second phase does that; its path."""

    def write(name: str, fault: str) -> str:
        (folder / f"{name}.py").write_text(BROKEN.replace("FAULT", fault))
        return f"./{name}.py"

    return write
