"""Checkpoints on disk: whole or not there, the newest two, and a way back from whatever is damaged."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_runner

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.store import checkpoint
from imbcil.harness.store.checkpoint import CheckpointStore


class Shelf:
    """A checkpoint store and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.folder = folder
        self.store = CheckpointStore(folder, self.said.append)

    def save(self, number: int) -> None:
        self.store.save({"number": number}, {"x": torch.full((4,), float(number))})

    def number(self) -> int | None:
        """What the newest checkpoint says, in tree and tensors alike."""
        found = self.store.load()
        if found is None:
            return None
        tree, tensors = found
        assert tensors["x"].tolist() == [float(tree["number"])] * 4
        return int(tree["number"])

    def newest(self) -> Path:
        return self.folder / f"{self.store.numbers()[-1]:06d}"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "checkpoint")


def test_an_empty_folder_has_no_checkpoint(shelf: Shelf):
    assert shelf.number() is None
    assert shelf.said == []


def test_the_newest_comes_back_and_two_are_kept(shelf: Shelf):
    for number in range(1, 6):
        shelf.save(number)
        assert shelf.number() == number
        assert len(shelf.store.numbers()) == min(number, 2)
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["000004", "000005"]


def test_numbers_go_on_beyond_the_padding(shelf: Shelf):
    shelf.save(1)
    (shelf.folder / "000001").rename(shelf.folder / "999999")
    shelf.save(2)
    assert shelf.store.numbers() == [999999, 1000000]
    assert shelf.number() == 2


def test_another_process_reads_what_this_one_wrote(shelf: Shelf):
    shelf.save(3)
    assert Shelf(shelf.folder).number() == 3


def test_nothing_on_disk_is_a_pickle(shelf: Shelf):
    shelf.save(1)
    assert {path.name for path in shelf.newest().iterdir()} == {"state.json", "tensors.safetensors"}
    json.loads((shelf.newest() / "state.json").read_text())


def spoil_tensor(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def spoil_tree(folder: Path) -> None:
    """One digit of the state: still JSON, no longer the truth."""
    path = folder / "state.json"
    text = path.read_text()
    assert '"number": 2' in text
    path.write_text(text.replace('"number": 2', '"number": 7'))


def cut(name: str) -> Any:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return spoil


def content(text: str | bytes) -> Any:
    def spoil(folder: Path) -> None:
        (folder / "state.json").write_bytes(text.encode() if isinstance(text, str) else text)

    return spoil


DAMAGES = {
    "a flipped bit": spoil_tensor,
    "a changed digit": spoil_tree,
    "half the tensors": cut("tensors.safetensors"),
    "half the state": cut("state.json"),
    "no tensors": lambda folder: (folder / "tensors.safetensors").unlink(),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a folder in place of a file": lambda folder: (
        (folder / "state.json").unlink(), (folder / "state.json").mkdir()
    ),
    "no text": content(b"\xff\xfe\x00"),
    "a list": content("[]"),
    "a number": content("3"),
    "an empty object": content("{}"),
    "nested too deep": content("[" * 100_000),
    "another format": content('{"format": 99, "sha256": "", "tree": {}}'),
    "a wrong kind of checksum": content('{"format": 1, "sha256": 3, "tree": {}}'),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_word_for_the_one_before(shelf: Shelf, damage: Any):
    shelf.save(1)
    shelf.save(2)
    folder = shelf.newest()
    damage(folder)
    assert shelf.number() == 1
    assert len(shelf.said) == 1
    assert str(folder) in shelf.said[0]
    assert "going back to the one before" in shelf.said[0]
    shelf.save(3)
    assert shelf.number() == 3


def test_a_checkpoint_from_before_the_states_own_checksum_is_read(shelf: Shelf):
    shelf.save(1)
    path = shelf.newest() / "state.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "tree_sha256"}))
    assert shelf.number() == 1


def test_where_all_are_damaged_there_is_none(shelf: Shelf):
    shelf.save(1)
    shelf.save(2)
    for number in shelf.store.numbers():
        (shelf.folder / f"{number:06d}" / "state.json").write_text("{")
    assert shelf.number() is None
    assert len(shelf.said) == 2


def test_an_unfinished_checkpoint_of_a_killed_process_is_not_seen_and_goes_with_the_next(shelf: Shelf):
    shelf.save(1)
    left = shelf.folder / ".000002.99999.part"
    shutil.copytree(shelf.newest(), left)
    assert shelf.number() == 1
    shelf.save(2)
    assert not left.exists()


def test_clearing_leaves_nothing_behind(shelf: Shelf):
    shelf.save(1)
    (shelf.folder / ".000002.1.part").mkdir()
    shelf.store.clear()
    assert list(shelf.folder.iterdir()) == []
    assert shelf.number() is None


def test_other_files_beside_are_left_alone(shelf: Shelf):
    shelf.save(1)
    (shelf.folder / "notes").mkdir()
    shelf.save(2)
    shelf.store.clear()
    assert [path.name for path in shelf.folder.iterdir()] == ["notes"]


@pytest.mark.parametrize("failing", ["tensors.safetensors", "state.json"])
def test_a_full_disk_stops_the_run_and_the_older_checkpoints_stay(
    shelf: Shelf, failing: str, monkeypatch: pytest.MonkeyPatch
):
    shelf.save(1)
    shelf.save(2)
    write = checkpoint._write

    def full(path: Path, data: bytes) -> None:
        if path.name == failing:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(
        RunStopped, match=r"Cannot write a checkpoint to .*: No space left on device. Free space"
    ) as stop:
        shelf.save(3)
    assert str(shelf.folder) in str(stop.value)
    monkeypatch.undo()
    assert sorted(path.name for path in shelf.folder.iterdir()) == ["000001", "000002"]
    assert shelf.number() == 2
    shelf.save(4)
    assert shelf.number() == 4


def test_a_rename_that_fails_leaves_the_older_checkpoints(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    shelf.save(1)

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunStopped, match="Input/output error"):
        shelf.save(2)
    monkeypatch.undo()
    assert [path.name for path in shelf.folder.iterdir()] == ["000001"]


def test_the_old_ones_go_only_after_the_new_one_is_there(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    shelf.save(1)
    shelf.save(2)
    seen = []
    original = shutil.rmtree

    def watched(path: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(sorted(p.name for p in shelf.folder.iterdir()))
        original(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watched)
    shelf.save(3)
    assert seen == [["000001", "000002", "000003"]]


# --- a run's own checkpoints --------------------------------------------------------------------------------------


def stored_runner(store: Path) -> Any:
    """A runner that has just written the checkpoint of its first phase's beginning."""
    runner = tiny_runner("replay", store)
    runner._build_network()
    runner.save()
    return runner


HOSTILE = {
    "nothing": {},
    "a list": [],
    "a number": 3,
    "no such key": {"$dict": {"threads": 1}},
    "a tensor that is not there": {"$tensor": "state.absent", "grad": False, "host": True},
    "a network of nothing": {"$network": "n", "spec": {}, "wraps": {}, "grad": [], "train": []},
    "a float that is none": {"$float": "import os"},
    "a key too many": {"$dict": {"threads": "many"}},
}


@pytest.mark.parametrize("tree", HOSTILE.values(), ids=HOSTILE)
def test_a_state_that_no_run_wrote_is_refused_in_one_sentence_and_stays(tree: Any, tmp_path: Path):
    runner = stored_runner(tmp_path)
    runner.checkpoints.save(tree, {})
    with pytest.raises(BadInput, match=r"does not fit this run .* delete that folder to start") as refusal:
        tiny_runner("replay", tmp_path).run()
    assert str(runner.checkpoints.folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert runner.checkpoints.numbers() == [1, 2]


def test_tensors_of_another_shape_are_refused(tmp_path: Path):
    runner = stored_runner(tmp_path)
    tree, tensors = runner.checkpoints.load()
    name = next(name for name in tensors if name.endswith("conv1.weight"))
    runner.checkpoints.save(tree, {**tensors, name: torch.zeros(1)})
    with pytest.raises(BadInput, match="does not fit this run"):
        tiny_runner("replay", tmp_path).run()


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path):
    runner = stored_runner(tmp_path)
    with torch.no_grad():
        runner.learner.net.backbones[0].conv1.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(
        RunStopped, match=r"backbones\.0\.conv1\.weight of replay is not finite in phase"
    ) as stop:
        runner.save()
    assert "the last good checkpoint stays" in str(stop.value)
    assert runner.checkpoints.numbers() == [1]
    _, tensors = runner.checkpoints.load()
    assert all(bool(value.isfinite().all()) for value in tensors.values() if value.is_floating_point())
