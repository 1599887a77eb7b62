"""Fixtures that every test may use: folders of its own, the console script, real data where there are any."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from console import SCRIPT, Cli


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data; tests that need it are skipped where it is absent."""
    given = os.environ.get("IMBCIL_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not here: {folder} is no folder; set IMBCIL_TEST_DATA to one")
    return folder


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IMBCIL_DATA of the whole session, so that embedded data are rendered once."""
    return tmp_path_factory.mktemp("data-cache")


@pytest.fixture(autouse=True)
def folders_of_its_own(tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the store, cache or tracking server of the person who runs it."""
    monkeypatch.setenv("IMBCIL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("IMBCIL_DATA", str(data_cache))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the console script in `tmp_path`, as a person would; text out, no check of the exit code."""

    def call(*args: object, env: Mapping[str, str] | None = None, timeout: float = 120, **options: object):
        return subprocess.run(
            [str(SCRIPT), *map(str, args)],
            cwd=options.pop("cwd", tmp_path),
            env={**os.environ, "COLUMNS": "120", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    return call
