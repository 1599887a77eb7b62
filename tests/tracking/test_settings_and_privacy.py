"""Where runs are tracked, what is refused, and what never leaves the machine."""

import pytest
from run_factory import PhaseRecord, make_info, new_store, start_run

from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking import resolve_tracking
from imbcil.harness.tracking.describe import LONGEST_TEXT, description, escape, legal_key
from imbcil.harness.tracking.privacy import scrub, scrub_command, scrub_value
from imbcil.harness.tracking.settings import without_password
from imbcil.harness.tracking.truth import read_truth


def test_the_flag_wins_over_the_environment_and_that_over_the_stores_own_file(tmp_path) -> None:
    store = Store(tmp_path)
    environ = {"MLFLOW_TRACKING_URI": "http://host:1"}
    assert resolve_tracking(store, "http://host:2/", environ=environ).uri == "http://host:2"
    assert resolve_tracking(store, environ=environ).uri == "http://host:1"
    own = resolve_tracking(store, environ={})
    assert (own.uri, own.embedded, own.remote) == (f"sqlite:///{tmp_path}/mlflow.db", True, False)
    assert resolve_tracking(store, "http://host:2", disabled=True, environ=environ).uri is None


def test_the_stores_own_file_is_known_even_when_it_is_named(tmp_path) -> None:
    assert resolve_tracking(Store(tmp_path), f"sqlite:///{tmp_path}/mlflow.db", environ={}).embedded


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("./mlruns", "is no address"),
        ("file:///tmp/mlruns", "is no address"),
        ("http://", "names no host"),
        ("http://host:nine", "is no address"),
        ("sqlite:///a%20b.db", "without % and ?"),
        ("sqlite://relative.db", "sqlite:///"),
    ],
)
def test_an_address_that_mlflow_could_not_use_is_refused_by_name(tmp_path, uri: str, word: str) -> None:
    with pytest.raises(BadInput, match="--tracking-uri") as caught:
        resolve_tracking(Store(tmp_path), uri, environ={})
    assert word in str(caught.value)
    assert uri in str(caught.value)


def test_a_refused_address_is_shown_without_its_password(tmp_path) -> None:
    with pytest.raises(BadInput) as caught:
        resolve_tracking(Store(tmp_path), "ftp://me:hunter2@host/x", environ={})
    assert "hunter2" not in str(caught.value)
    assert without_password("postgresql://me:p@ss@host/db") == "postgresql://host/db"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Cannot write /home/me/store/runs/x: no space", "Cannot write x: no space"),
        ("memory 20/class, lfs-10 and http://host/x/y", "memory 20/class, lfs-10 and http://host/x/y"),
        ('{"order": "/home/my self/order.yaml"}', '{"order": "order.yaml"}'),
        ("key: C:\\Users\\me\\w.bin", "key: w.bin"),
        ("see http://me:pw@host:5000/x", "see http://host:5000/x"),
        ("a / b and 3/4", "a / b and 3/4"),
    ],
)
def test_paths_keep_their_last_part_and_everything_else_its_text(text: str, clean: str) -> None:
    assert scrub(text) == clean


def test_a_value_that_is_a_path_keeps_its_name_alone() -> None:
    assert scrub_value("/home/my self/mine.py") == "mine.py"
    assert scrub_value("~/x/mine.py") == "mine.py"
    assert scrub_value("resnet32_conv") == "resnet32_conv"


def test_a_store_whose_name_has_spaces_is_cut_as_well(tmp_path) -> None:
    root = tmp_path / "my long store"
    assert scrub(f"Cannot write {root}/runs/x: no space", root) == "Cannot write x: no space"


def test_a_command_keeps_what_repeats_the_run_and_drops_where_things_lie() -> None:
    command = "imbcil-bench run --store=/home/me/s --data-root /d --set train.lr=0.1 --method '/home/me/a b.py+more'"
    assert scrub_command(command) == "imbcil-bench run --set train.lr=0.1 --method 'a b.py+more'"


def test_user_text_cannot_break_out_of_a_table_or_into_a_link() -> None:
    assert escape("a|b`c<img>[x](y)\n*") == "a\\|b'c&lt;img&gt;\\[x\\](y) \\*"


@pytest.mark.parametrize("key", ["a%b", "/a/", "a//b", "../x", "a/./b", "x" * 300, "é/fc", "", "a\nb"])
def test_every_key_becomes_one_that_mlflow_accepts(key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(legal_key(key) or "_")


def test_a_description_of_three_hundred_phases_still_fits(tmp_path) -> None:
    run = start_run(new_store(tmp_path / "store"))
    (run.path / "phases.jsonl").write_text(
        "".join(
            PhaseRecord(phase=t, time_ms=t, metrics={"phase/acc_total": 50.0}).model_dump_json() + "\n"
            for t in range(300)
        )
    )
    text = description(read_truth(run), "running")
    assert len(text) <= LONGEST_TEXT
    assert "\n| 0 |" in text
    assert "\n| 299 |" in text
    assert text.rstrip().endswith("300 of 3 phases")


def test_a_runs_label_names_method_and_seed() -> None:
    from imbcil.harness.tracking.describe import run_name

    assert run_name(make_info(2, "icarl+more")) == "icarl+more s2"
