"""`imbcil-bench table` as a person types it."""

import json

import pytest
from fake_runs import add_run, make_store


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")  # IMBCIL_STORE of every test
    for seed in range(3):
        add_run(store, "gradient_reweighting", 35.5 + seed / 10, seed=seed)
        add_run(store, "icarl", 22.0 + seed / 10, seed=seed)
    return store


def test_the_table_of_the_default_store_is_printed(cli, store):
    done = cli("table")
    assert done.returncode == 0 and done.stderr == ""
    assert "35.60 ± 0.10 (3)" in done.stdout and "35.66 (-0.06, verified)" in done.stdout


def test_a_file_gets_the_form_of_its_ending(cli, store, tmp_path):
    done = cli("table", "--out", "results.tex", "--metric", "last_acc_total")
    assert (done.returncode, done.stdout) == (0, "")
    text = (tmp_path / "results.tex").read_text()
    assert r"\begin{tabular}{lr}" in text and r"last\_acc\_total" in text


def test_json_is_nothing_but_json(cli, store):
    content = json.loads(cli("table", "--format", "json").stdout)
    assert content["tables"][0]["cells"]


def test_a_damaged_run_costs_one_line_on_stderr(cli, store):
    broken = add_run(store, "replay", 10)
    (broken.path / "run.json").write_text("{")
    done = cli("table")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and broken.path.name in done.stderr
    assert "35.60" in done.stdout


def test_the_poster_can_be_shown_on_a_machine_that_has_run_nothing(cli):
    done = cli("table", "poster", "--format", "json")
    assert done.returncode == 0
    cells = json.loads(done.stdout)["tables"][0]["cells"]
    assert sum(cell["published"] is not None for cell in cells) == 144
    assert {
        cell["state"] for cell in cells if cell["dataset"] == "food101-lt" and cell["kind"] == "measured"
    } == {"no images here"}


def test_a_store_without_finished_runs_says_how_to_start_one(cli, tmp_path):
    add_run(make_store(tmp_path / "store"), status="failed", reason="disk full", done=1)
    done = cli("table")
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert "No finished run" in said and "imbcil-bench run" in said and "1 of 2 phases" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--store", "nowhere"], "There is no store at"),
        (["--metric", "avg_acc_totl"], "did you mean avg_acc_total"),
        (["postr"], "did you mean poster"),
        (["--format", "word"], "'word' is not one of"),
        (["--out", "no/such/folder/t.md"], "Cannot write --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_costs_one_sentence_and_exit_code_2(cli, store, arguments, said):
    done = cli("table", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_a_store_of_a_newer_version_is_refused(cli, store):
    (store.root / "store.json").write_text('{"version": 99}')
    done = cli("table")
    assert done.returncode == 2 and "newer imbcil-bench" in done.stderr


def test_differences_are_printed_in_every_form(cli, store):
    done = cli("table", "--compare", "icarl", "--metric", "avg_acc_task_mean")
    assert done.returncode == 0 and "+13.50 ± 0.00 (3)*" in done.stdout
    cells = json.loads(cli("table", "--compare", "icarl", "--format", "json").stdout)["tables"][0]["cells"]
    assert [(cell["method"], cell["state"], cell["n"]) for cell in cells] == [
        ("gradient_reweighting", "difference", 3)
    ]
