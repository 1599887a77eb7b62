"""Suites: grids of runs that fill a table, one YAML file each, found by file name."""

from pathlib import Path

FOLDER = Path(__file__).parent


def suite_names() -> list[str]:
    """Every built-in suite, sorted; reads file names only."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def suite_path(name: str) -> Path | None:
    """The file of a built-in suite, or None."""
    return FOLDER / f"{name}.yaml" if name in suite_names() else None
