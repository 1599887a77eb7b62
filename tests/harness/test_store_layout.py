"""The store: where it is, whom it refuses, which runs and attempts it finds."""

from pathlib import Path

import pytest
from tiny import tiny_plan

from imbcil.harness.base.errors import BadInput
from imbcil.harness.store.layout import STORE_VERSION, Store, attempt_key, is_owned, store_root


def test_the_flag_wins_over_the_environment_and_both_over_the_default(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMBCIL_STORE", "from-environment")
    assert store_root("given") == tmp_path / "given"
    assert store_root(None) == tmp_path / "from-environment"
    monkeypatch.delenv("IMBCIL_STORE")
    assert store_root(None) == tmp_path / "imbcil-store"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_root("~/runs") == tmp_path / "home" / "runs"


@pytest.mark.parametrize("name", ["50%", "what?"])
def test_a_path_that_mlflow_cannot_take_is_refused(tmp_path: Path, name: str):
    with pytest.raises(BadInput, match=rf"holds '{'[%]' if '%' in name else '[?]'}'.*choose another --store"):
        Store(tmp_path / name)


@pytest.mark.parametrize("name", ["with space", "ünïcode", "a#b", "a&b=c", "x" * 100])
def test_other_odd_names_work(tmp_path: Path, name: str):
    store = Store(tmp_path / name)
    store.prepare()
    assert Store(tmp_path / name).runs() == []


def test_preparing_twice_changes_nothing(tmp_path: Path):
    for _ in range(2):
        Store(tmp_path).prepare()
    assert (tmp_path / "store.json").read_text() == f'{{"version": {STORE_VERSION}}}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "store.json"]


def test_only_looking_at_a_store_writes_nothing(tmp_path: Path):
    store = Store(tmp_path / "absent")
    assert store.runs() == []
    assert store.attempts("key") == []
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("content", [f'{{"version": {STORE_VERSION + 1}}}', '{"version": "1"}', "{}"])
def test_a_store_of_a_newer_version_is_refused(tmp_path: Path, content: str):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(
        BadInput, match=r"newer imbcil-bench .* update imbcil-bench or choose another --store"
    ):
        Store(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_version_mark_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "store.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"store\.json is damaged"):
        Store(tmp_path)


def test_a_store_in_place_of_a_file_cannot_be_prepared(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"Cannot write to the store .*file: .*choose another --store"):
        Store(tmp_path / "file").prepare()


def test_runs_are_found_by_their_description_and_others_are_not(tmp_path: Path):
    first, _ = tiny_plan("finetune", tmp_path, seed=0)
    second, _ = tiny_plan("finetune", tmp_path, seed=1)
    (tmp_path / "runs" / "half-made").mkdir()
    (tmp_path / "runs" / "a-file").write_text("")
    found = [run.path for run in Store(tmp_path).runs()]
    assert found == sorted([first.folder.path, second.folder.path])


def test_attempts_are_counted_without_a_gap(tmp_path: Path):
    run, _ = tiny_plan("finetune", tmp_path)
    store, key = Store(tmp_path), run.info.run_key
    for attempt in (2, 4):
        store.run(attempt_key(key, attempt)).create(run.info, run.config)
    assert [folder.path.name for folder in store.attempts(key)] == [key, f"{key}-2"]


def test_a_run_is_owned_while_its_lock_is_held(tmp_path: Path):
    run, _ = tiny_plan("finetune", tmp_path)
    assert not is_owned(run.folder)
    with run.folder.owner_lock():
        assert is_owned(run.folder)
    assert not is_owned(run.folder)
