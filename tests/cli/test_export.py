"""`imbcil-bench export`, and `table --measured` on a machine that has run nothing."""

import json

import pytest
from fake_runs import add_run, make_store


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    add_run(store, "icarl", 22.0)
    add_run(store, "finetune", 10.0)
    return store


def test_exported_runs_fill_the_poster_elsewhere(cli, store, tmp_path):
    done = cli("export", "--layout", "poster", "--out", "mine.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 run written to mine.csv.\n")
    there = cli("table", "poster", "--store", "nothing", "--measured", "mine.csv", "--format", "json")
    cells = json.loads(there.stdout)["tables"][0]["cells"]
    (cell,) = [cell for cell in cells if cell["origin"] == "from mine.csv" and cell["state"] == "measured"]
    assert (cell["method"], cell["mean"], cell["column"]) == ("icarl", 22.0, "lfs-10")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "--store", "nowhere"], "There is no store at"),
        (["export", "--recipe", "pycil"], "No finished run"),
        (["export", "--layout", "postr"], "did you mean poster"),
        (["table", "--measured", "no.csv"], "Cannot read no.csv"),
    ],
    ids=" ".join,
)
def test_bad_input_costs_one_sentence(cli, store, arguments, said):
    done = cli(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1
