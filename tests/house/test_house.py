"""The house itself: nothing is left out of the wheel, pins are pins, and files stay small."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FLOORS = ("harness", "protocols", "methods", "baselines", "reports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = set(PROJECT["tool"]["setuptools"]["packages"])
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def source_files() -> list[Path]:
    return [
        file
        for floor in FLOORS
        for file in sorted((ROOT / floor).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    ]


def tracked_files() -> list[Path]:
    """What git knows of; in an unpacked archive, everything that is no build product."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    return [
        file for floor in (*FLOORS, "tests", "docs", "benchmarks") for file in (ROOT / floor).rglob("*.py")
    ]


def test_every_folder_with_code_or_data_is_a_package_of_the_wheel():
    folders = {file.parent.relative_to(ROOT) for file in source_files()}
    missing = {".".join(["imbcil", *folder.parts]) for folder in folders} - PACKAGES
    assert not missing, f"add to [tool.setuptools] packages in pyproject.toml: {sorted(missing)}"


def test_every_kind_of_file_is_packed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    left_out = [
        file for file in source_files() if file.suffix != ".py" and not any(map(file.match, patterns))
    ]
    assert not left_out


def test_each_top_level_package_says_that_it_is_typed():
    assert all((ROOT / floor / "py.typed").is_file() for floor in FLOORS)


def test_constraints_pin_names_to_versions_and_name_no_host_and_no_path():
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_every_dependency_is_pinned_to_a_version_that_the_project_allows():
    pins = {Requirement(line).name.lower().replace("_", "-"): line.split("==")[1] for line in PINS}
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for text in [text for group in groups for text in group]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), text


def test_make_offers_demo_test_lint_and_bench_and_no_more():
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony and phony[1].split() == ["demo", "test", "lint", "bench"]


def test_ci_calls_make_test():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


@pytest.mark.parametrize("file", [f for f in source_files() if f.suffix == ".py"], ids=lambda f: f.stem)
def test_no_source_file_is_longer_than_300_lines(file: Path):
    assert len(file.read_text().splitlines()) <= 300


def test_no_file_knows_one_machines_folders():
    pattern = re.compile("|".join([r"(?<![\w.])/wo" + "rk/", r"\.\./sha" + "red"]))
    texts = (file for file in tracked_files() if file.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ""})
    assert [str(file) for file in texts if pattern.search(file.read_text(errors="replace"))] == []
