"""`imbcil-bench plot` as a person types it."""

import pytest
from fake_runs import add_run, make_store

TABLE = """phase,class_id,label,name,arrival_phase,train_count,group,accuracy,weight_norm
0,0,0,a,0,300,many,80.0,2.0
0,1,1,b,0,5,few,40.0,0.5
1,0,0,a,0,300,many,60.0,2.0
1,1,1,b,0,5,few,30.0,0.5
1,2,2,c,1,50,medium,70.0,1.5
"""


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    for method in ("icarl", "replay"):
        for seed in (0, 1):
            with_table(add_run(store, method, seed=seed))
    return store


def with_table(folder):
    (folder.path / "per_class.csv").write_text(TABLE)
    return folder


@pytest.mark.parametrize("name", ["forgetting", "weight-norms", "per-class"])
def test_a_figure_is_drawn_and_its_runs_are_named(cli, store, tmp_path, name):
    done = cli("plot", name, "--out", "figure.svg")
    assert (done.returncode, done.stdout) == (0, "")
    keys = [f.path.name for f in store.runs() if f.info().seed == 0]
    assert done.stderr == f"icarl: run {keys[0]}\nreplay: run {keys[1]}\nDrawn to figure.svg.\n"
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


def test_seed_and_learner_can_be_chosen_and_the_name_is_given(cli, store, tmp_path):
    done = cli("plot", "forgetting", "--seed", 1, "--method", "replay")
    (key,) = [f.path.name for f in store.runs() if (f.info().seed, f.info().method) == (1, "replay")]
    assert done.stderr == f"replay: run {key}\nDrawn to forgetting.png.\n"
    assert (tmp_path / "forgetting.png").stat().st_size > 3000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "a.jpg"], "has to end in .png, .pdf, .svg"),
        (["--method", "wa"], "No finished run"),
        (["--seed", "7"], "has seed 7"),
        (["--store", "nowhere"], "There is no store at"),
    ],
    ids=" ".join,
)
def test_bad_input_costs_one_sentence(cli, store, arguments, said):
    done = cli("plot", "forgetting", *arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_runs_of_several_kinds_are_refused_with_the_options_that_part_them(cli, store):
    with_table(add_run(store, "wa", column="lfh-5", recipe="paper-quarter"))
    done = cli("plot", "forgetting")
    assert done.returncode == 2
    assert "choose with --column lfh-5 or lfs-10, --recipe paper or paper-quarter" in done.stderr
    with_table(add_run(store, "bic", memory="2000"))
    assert "with --run" in cli("plot", "forgetting", "--column", "lfs-10").stderr


def test_predictions_of_a_run_that_is_not_there_or_has_one_label_an_image_cost_one_sentence(cli, store):
    (key, *_) = [f.path.name for f in store.runs()]
    for asked, said in ((key, "have one label each"), ("nowhere", "There is no run nowhere")):
        done = cli("plot", "predictions", asked)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
