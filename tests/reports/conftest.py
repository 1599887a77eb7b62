"""A store to fill."""

from pathlib import Path

import pytest
from fake_runs import make_store

from imbcil.harness.store.layout import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")
