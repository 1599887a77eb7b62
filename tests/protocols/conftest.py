"""A data root of the test's own, and a small dataset in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import small_arrays

from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario, build_scenario
from imbcil.protocols.settings import ProtocolSettings


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
