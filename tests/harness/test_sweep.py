"""Sweeps: a suite's grid as cells, refused whole before anything runs, and a failed cell beside finished ones."""

from pathlib import Path

import pytest

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.sweep import cells_of, load_suite, suite_names


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


GRID = """
columns:
  - {protocol: lfs, n_tasks: 2, dataset: glyphs100-lt}
  - {protocol: lfh, n_tasks: 5, dataset: cifar100-lt}
rows:
  - {method: replay}
  - {method: icarl, set: {icarl.temperature: 3}}
recipe: quick
seeds: [0, 1]
"""


def test_there_is_one_cell_for_each_row_and_column(tmp_path: Path) -> None:
    cells = cells_of(load_suite(written(tmp_path, GRID)), {})
    assert [(cell.column.dataset, cell.row.method) for cell in cells] == [
        ("glyphs100-lt", "replay"), ("glyphs100-lt", "icarl"), ("cifar100-lt", "replay"), ("cifar100-lt", "icarl"),
    ]  # fmt: skip
    assert cells[3].as_json() == {
        "learner": "icarl", "protocol": "lfh", "n_tasks": 5, "dataset": "cifar100-lt", "seeds": [0, 1],
        "set": {"icarl.temperature": 3}, "recipe": "quick", "preset": None, "memory": None,
    }  # fmt: skip


def test_flags_win_over_the_suite_and_a_dataset_keeps_its_columns(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, GRID))
    cells = cells_of(suite, {"seeds": (7,), "recipe": None, "set": {"train.epochs": 1}}, "cifar100-lt")
    assert [cell.column.protocol for cell in cells] == ["lfh", "lfh"]
    assert cells[1].request.seeds == (7,)
    assert cells[1].request.recipe == "quick"
    assert cells[1].request.set == {"icarl.temperature": 3, "train.epochs": 1}
    with pytest.raises(UnknownName, match="did you mean cifar100-lt"):
        cells_of(suite, {}, "cifar10-lt")


def test_an_unknown_learner_names_line_and_suggestion(tmp_path: Path) -> None:
    path = written(tmp_path, GRID.replace("method: icarl,", "method: icarll,"))
    with pytest.raises(BadInput, match=r"mine\.yaml, line 7: .*icarll.*did you mean icarl"):
        load_suite(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("rows: []\ncolumns: []", "columns"), ("colums: 3", "unknown key 'colums'; did you mean columns"),
     ("a: &x [1]\nb: *x", "aliases"), ("rows: 3", "rows = 3|columns")],
)  # fmt: skip
def test_a_bad_suite_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence):
        load_suite(written(tmp_path, text))


def test_every_built_in_suite_reads_and_the_ablation_switches_one_part_off_at_a_time() -> None:
    assert "dgr-ablation" in suite_names()
    for name in suite_names():
        assert cells_of(load_suite(name), {})
    rows = load_suite("dgr-ablation").rows
    assert all(len(row.set) <= 1 for row in rows)
    parts = {path.split(".")[1] for row in rows for path in row.set}
    assert {"prior", "alpha", "decoupling", "ratio", "beta", "distillation", "normalisation"} <= parts
