"""Sweeps: a suite's grid as cells, refused whole before anything runs, and a failed cell beside finished ones."""

import csv
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.cli.main import main
from imbcil.harness.resolve import resolve_plans
from imbcil.harness.scenario_request import resolve_recipe
from imbcil.harness.sweep import cells_of, defined_cells, load_suite, suite_names

PLUGINS = (
    "balanced_softmax",
    "logit_adjustment",
    "class_balanced_sampling",
    "two_stage",
    "more",
)  # of suite plugins-cil


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


def test_a_setting_of_one_learner_reaches_the_rows_that_have_it(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, GRID.replace("method: replay", "method: wa+two_stage")))
    cells = cells_of(suite, {"set": {"icarl.flip_means": True, "two_stage.epochs": 3, "train.epochs": 1}})
    assert cells[0].request.set == {"two_stage.epochs": 3, "train.epochs": 1}
    assert cells[1].request.set == {"icarl.temperature": 3, "icarl.flip_means": True, "train.epochs": 1}
    stranger = cells_of(suite, {"set": {"icarll.flip_means": True}})[0]
    with pytest.raises(BadInput, match=r"--set icarll\.flip_means: unknown path"):
        resolve_plans(stranger.request, resolve_recipe(stranger.request)[0])


def test_a_total_memory_may_be_written_as_a_number(tmp_path: Path) -> None:
    assert load_suite(written(tmp_path, GRID + "memory: 2000\n")).memory == "2000"


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


def test_the_posters_suites_hold_its_rows_and_columns() -> None:
    with (Path(str(files("imbcil.reports.published"))) / "gradient_reweighting_poster.csv").open() as stream:
        printed = list(csv.DictReader(stream))
    columns = {(row["dataset"], row["protocol"], int(row["n_tasks"])) for row in printed}
    rows = list(dict.fromkeys(row["method"] for row in printed))
    ours = {"imagenet-subset-lt": "imagenetsubset-lt"}
    suites = {name: load_suite(name) for name in ("poster", "poster-large")}
    for suite in suites.values():
        assert [row.method for row in suite.rows] == [_ours(name) for name in rows]
        assert suite.preset == "released"
    found = [
        (ours.get(column.dataset, column.dataset), column.protocol, column.n_tasks)
        for suite in suites.values()
        for column in suite.columns
    ]
    assert len(found) == len(set(found)) == 12
    assert set(found) == columns
    assert len(cells_of(suites["poster"], {})) == 48
    assert {cell.request.recipe for cell in cells_of(suites["poster"], {})} == {"paper"}


def _ours(printed: str) -> str:
    """`PODNet-2stage` -> `podnet+two_stage`, as protocols and cards name them."""
    known = {"DGR": "gradient_reweighting"}
    return known.get(printed, printed.lower().replace("-2stage", "+two_stage"))


def test_the_rows_trained_with_autoaugment_and_the_balanced_ladder() -> None:
    strong, balanced = load_suite("poster-aa"), load_suite("balanced")
    assert [row.method for row in strong.rows] == ["foster", "mafdrc", "foster+two_stage"]
    assert len(cells_of(strong, {})) == 12
    assert {cell.request.recipe for cell in cells_of(strong, {})} == {"paper-aa"}
    assert {(column.protocol, column.n_tasks) for column in balanced.columns} == {
        ("lfs", 10), ("lfs", 20), ("lfh", 5), ("lfh", 10),
    }  # fmt: skip
    assert {column.dataset for column in balanced.columns} == {"cifar100"}
    assert balanced.recipe == "pycil"
    assert "gradient_reweighting" in {row.method for row in balanced.rows}


def test_every_built_in_suite_reads_and_the_ablation_switches_one_part_off_at_a_time() -> None:
    assert "dgr-ablation" in suite_names()
    for name in suite_names():
        assert cells_of(load_suite(name), {})
    rows = load_suite("dgr-ablation").rows
    assert all(len(row.set) <= 1 for row in rows)
    parts = {path.split(".")[1] for row in rows for path in row.set}
    assert {"prior", "alpha", "decoupling", "ratio", "beta", "distillation", "normalisation"} <= parts


REFUSED = """
columns:
  - {protocol: lfs, n_tasks: 2, dataset: glyphs100-lt}
rows:
  - {method: podnet}
  - {method: podnet+balanced_softmax}
  - {method: icarl+balanced_softmax}
recipe: quick
"""


def test_what_the_contract_refuses_is_called_not_defined_and_keeps_no_other_cell_from_running(
    tmp_path: Path,
) -> None:
    cells = cells_of(load_suite(written(tmp_path, REFUSED)), {})
    said: list[str] = []
    assert [cell.row.method for cell in defined_cells(cells, said.append)] == [
        "podnet",
        "icarl+balanced_softmax",
    ]
    assert len(said) == 1
    assert said[0].startswith(
        "not defined: podnet+balanced_softmax in lfs-2 on glyphs100-lt: balanced_softmax replaces"
    )
    assert [("not_defined" in cell.as_json()) for cell in cells] == [False, True, False]
    assert "brings its own (NCA on proxies)" in cells[1].as_json()["not_defined"]
    with pytest.raises(BadInput, match="No cell of this suite can be run; the first one: balanced_softmax"):
        defined_cells(cells[1:2], said.append)


def test_other_mistakes_are_no_matter_of_definition(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, REFUSED))
    cells = cells_of(suite, {"set": {"train.epocs": 3}})
    assert [bool(cell.not_defined) for cell in cells] == [False, False, False]


def test_the_grid_of_plug_ins_and_learners_leaves_out_what_has_a_criterion_of_its_own() -> None:
    cells = cells_of(load_suite("plugins-cil"), {})
    learners = ("replay", "icarl", "lucir", "podnet", "foster", "gradient_reweighting")
    plugins = ("", *PLUGINS)
    assert [cell.row.method for cell in cells] == 2 * [
        "+".join(filter(None, pair)) for pair in product(learners, plugins)
    ]
    assert {(cell.column.protocol, cell.column.n_tasks) for cell in cells} == {("lfs", 10), ("lfh", 5)}
    refused = {cell.row.method for cell in cells if cell.not_defined}
    own = ("podnet", "foster", "gradient_reweighting")
    criteria = ("balanced_softmax", "logit_adjustment")
    assert refused == {f"{learner}+{plugin}" for learner in own for plugin in criteria}


def test_the_suites_of_long_tailed_recognition_hold_the_ladder_and_mores_controls() -> None:
    ladder, more = load_suite("plugins-cifar"), load_suite("more-cifar")
    assert {(c.protocol, c.dataset, c.rho) for c in ladder.columns} == {
        ("static", "cifar100-lt", rho) for rho in (100, 50)
    }
    assert {(c.protocol, c.dataset, c.rho) for c in more.columns} == {("static", "cifar100-lt", 10)}
    assert (ladder.recipe, more.recipe, more.seeds) == ("bot", "more-weak", (0, 1, 2))
    used = {plugin for row in ladder.rows for plugin in row.method.split("+")[1:]}
    assert used == {
        "focal", "class_balanced_loss", "balanced_softmax", "logit_adjustment", "ldam_drw", "class_balanced_sampling", "drs", "crt",
        "lws", "tau_norm", "mixup", "more",
    }  # fmt: skip
    for base in ("finetune", "finetune+logit_adjustment"):
        amplitudes = [row.set.get("more.amplitude", 2) for row in more.rows if row.method == f"{base}+more"]
        assert amplitudes == [0, 0.25, 0.5, 1, 2]
        assert base in {row.method for row in more.rows}
    for suite in (ladder, more):
        cells = cells_of(suite, {})
        assert not [cell.not_defined for cell in cells if cell.not_defined]
        for cell in cells:
            resolve_plans(
                cell.request, resolve_recipe(cell.request)[0]
            )  # every setting is one of its plug-in


def test_a_dry_run_says_how_many_cells_there_are_and_what_they_share() -> None:
    for flags, first in (
        (["poster"], "48 cells, recipe paper, preset released"),
        (
            ["poster", "--preset", "sound", "--memory", "500"],
            "48 cells, recipe paper, preset sound, memory 500",
        ),
        (["plugins-cil"], "72 cells (12 not defined), recipe paper, preset of the recipe"),
    ):
        lines = CliRunner().invoke(main, ["sweep", *flags, "--dry-run"]).stdout.splitlines()
        assert lines[0] == first and len(lines) == 1 + int(first.split()[0])
