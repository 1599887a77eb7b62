"""Flags and file become one request: what wins, what words mean."""

from pathlib import Path

import pytest

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import load_learner
from imbcil.harness.cli.request import build_request

NONE: dict[str, object] = {}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(
        "protocol: lfh\nn_tasks: 5\nmethod: [icarl, replay]\nmemory: 2000\ncompile: off\nseed: 3\n"
        "set:\n  train.epochs: 9\n  icarl: {temperature: 1, train: {lr: 1e-3}}\n"
    )
    return path


def test_a_file_is_read_as_its_author_meant_it(config: Path):
    request = build_request(NONE, config, ())
    assert (request.protocol, request.n_tasks, request.method) == ("lfh", 5, ("icarl", "replay"))
    assert (request.memory, request.compile, request.seeds) == ("2000", "off", (3,))
    assert request.set == {"train.epochs": 9, "icarl.temperature": 1, "icarl.train.lr": 0.001}


def test_flags_win_over_the_file_and_leave_the_rest(config: Path):
    request = build_request({"n_tasks": 10, "method": ("finetune",), "seeds": None}, config, ())
    assert (request.n_tasks, request.method, request.seeds, request.protocol) == (
        10,
        ("finetune",),
        (3,),
        "lfh",
    )


def test_a_short_split_is_base_and_step_and_wins_over_the_files(config: Path):
    request = build_request({"split": "B10-C2"}, config, ())
    assert (request.base, request.step, request.n_tasks, request.split) == (10, 2, None, None)
    config.write_text("protocol: mlcil\nsplit: B0-C4\n")
    assert build_request(NONE, config, ()).step == 4
    assert build_request({"n_tasks": 5}, config, ()).step is None
    with pytest.raises(BadInput, match="split and base both say how classes are split"):
        build_request({"split": "B10-C2", "base": 3}, None, ())
    with pytest.raises(BadInput, match="split = 10-2: write B10-C2"):
        build_request({"split": "10-2"}, None, ())


def test_a_set_pair_wins_over_the_files_nested_setting(config: Path):
    request = build_request(NONE, config, ("icarl.train.lr=0.5", "train.batch=32"))
    assert request.set == {
        "train.epochs": 9,
        "icarl.temperature": 1,
        "icarl.train.lr": 0.5,
        "train.batch": 32,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=1e-3", 0.001),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=none", "none"),
        ("a.b=", None),
        ("a.b=x=y", "x=y"),
    ],
)
def test_the_value_of_a_pair_is_what_a_person_means(text: str, value: object):
    assert build_request(NONE, None, (text,)).set == {"a.b": value}


def test_the_last_of_two_pairs_with_one_path_counts():
    assert build_request(NONE, None, ("a.b=1", "a.b=2")).set == {"a.b": 2}


def test_an_empty_file_asks_for_the_defaults(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert build_request(NONE, tmp_path / "c.yaml", ()) == build_request(NONE, None, ())


def test_a_bare_run_on_several_labels_trains_learners_that_take_them():
    for asked in ({"protocol": "mlcil"}, {"protocol": "static", "dataset": "voc-mlt"}):
        methods = build_request(asked, None, ()).method
        assert methods == ("finetune", "replay", "podnet", "rebll")
        for name in methods:
            assert "multi" in load_learner(name).needs.labels
    assert build_request({"protocol": "mlcil", "method": ("icarl",)}, None, ()).method == ("icarl",)
    assert "foster" in build_request({"protocol": "static", "dataset": "cifar100-lt"}, None, ()).method


def test_a_bare_run_trains_four_learners_of_the_posters_table():
    assert build_request(NONE, None, ()).method == ("icarl", "podnet", "foster", "gradient_reweighting")
