"""Fixtures of the engine's tests."""

from pathlib import Path

import pytest
from opened import Opened


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path)
