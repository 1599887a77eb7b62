"""A run's folder: lines that are whole, first lines that stay, scores that are no pickles, errors in a sentence."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_plan

from imbcil.harness.base.errors import BadInput, RunStopped
from imbcil.harness.store.run_folder import PhaseRecord, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run, _ = tiny_plan("finetune", tmp_path / "store")
    return run.folder


def record(phase: int, **metrics: float) -> PhaseRecord:
    return PhaseRecord(
        phase=phase, time_ms=1000 + phase, metrics=metrics or {"phase/acc_total": 50.0 + phase}
    )


def test_a_new_folder_holds_its_description_and_config(tmp_path: Path):
    run, _ = tiny_plan("finetune", tmp_path / "store")
    assert run.folder.info() == run.info
    assert run.folder.config_path.read_text() == run.config
    assert run.folder.records() == []
    assert run.folder.state().status == "interrupted"
    assert run.folder.state().reason == "never started"


def test_lines_are_appended_in_order(folder: RunFolder):
    for phase in range(3):
        assert folder.append_record(record(phase)) == record(phase)
    assert folder.records() == [record(0), record(1), record(2)]
    lines = (folder.path / "phases.jsonl").read_text().splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"phase", "time_ms", "metrics"}] * 3


def test_a_phase_keeps_its_first_line(folder: RunFolder):
    folder.append_record(record(0, x=1.0))
    folder.append_record(record(1, x=2.0))
    assert folder.append_record(record(0, x=9.0)) == record(0, x=1.0)
    assert [line.metrics["x"] for line in folder.records()] == [1, 2]


@pytest.mark.parametrize(
    "left", ['{"phase": 1, "time', "", "{", '{"phase":1,"time_ms":1,"metrics":{}}', "\xe9"]
)
def test_a_last_line_cut_short_is_left_out_and_written_again(folder: RunFolder, left: str):
    folder.append_record(record(0))
    with (folder.path / "phases.jsonl").open("ab") as stream:
        stream.write(left.encode()[:1] if left == "\xe9" else left.encode())  # half a letter is no UTF-8
    assert folder.records() == [record(0)]
    folder.append_record(record(1))
    assert folder.records() == [record(0), record(1)]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"phase": 0}', '{"phase": 0, "time_ms": 1, "metrics": {"a": "x"}}']
)
def test_a_damaged_line_in_the_middle_is_named(folder: RunFolder, line: str):
    path = folder.path / "phases.jsonl"
    path.write_text(f"{line}\n{record(1).model_dump_json()}\n")
    with pytest.raises(BadInput, match=r"phases\.jsonl"):
        folder.records()


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-300, 100 / 3])
def test_metrics_keep_every_bit(folder: RunFolder, value: float):
    folder.append_record(record(0, x=value))
    assert folder.records()[0].metrics["x"].hex() == value.hex()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_cannot_be_recorded(value: float):
    with pytest.raises(ValueError, match="finite number"):
        record(0, x=value)


def test_the_state_says_how_far_a_run_is_and_why(folder: RunFolder):
    folder.set_state("failed", "the loss is not finite")
    assert (folder.state().status, folder.state().reason) == ("failed", "the loss is not finite")
    folder.set_state("finished", final={"final/avg_acc_total": 61.5})
    assert folder.state().final == {"final/avg_acc_total": 61.5}
    assert folder.state().reason == ""
    assert folder.state().updated_ms > 1_600_000_000_000


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "well"}', '{"status": "running", "x": 1}'])
def test_a_damaged_description_is_named(folder: RunFolder, content: str):
    (folder.path / "run.json").write_text(content)
    with pytest.raises(BadInput) as refusal:
        folder.info()
    assert str(folder.path / "run.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "well"}', '{"status": "running", "x": 1}'])
def test_a_damaged_state_is_told_from_the_phases(folder: RunFolder, content: str):
    (folder.path / "state.json").write_text(content)
    assert (folder.state().status, folder.state().reason) == ("interrupted", "state.json is damaged")


def test_scores_come_back_as_they_were(folder: RunFolder):
    arrays = {
        "test/fc": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        "test_rows": np.arange(4),
    }
    folder.save_scores(7, arrays)
    assert folder.scores_path(7).name == "phase-07.npz"
    back = folder.load_scores(7)
    assert back.keys() == arrays.keys()
    for name, value in arrays.items():
        assert np.array_equal(back[name], value)
        assert back[name].dtype == value.dtype
    assert [path.name for path in (folder.path / "scores").iterdir()] == ["phase-07.npz"]


def test_scores_that_hold_a_pickle_are_refused_unread(folder: RunFolder, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(folder.scores_path(0), x=np.array([Trap()], dtype=object))
    with pytest.raises(BadInput, match=r"Cannot read .*phase-00\.npz"):
        folder.load_scores(0)
    assert not (tmp_path / "sprung").exists()


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def one_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.arange(3))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        Path.unlink,
        half,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"no archive at all"),
        one_array,
    ],
)
def test_missing_or_broken_scores_are_named(folder: RunFolder, damage: Any):
    folder.save_scores(0, {"x": np.arange(100)})
    damage(folder.scores_path(0))
    with pytest.raises(BadInput, match=r"Cannot read .*phase-00\.npz"):
        folder.load_scores(0)


def test_a_full_disk_keeps_the_old_scores_and_stops_the_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    folder.save_scores(0, {"x": np.arange(3)})

    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(RunStopped, match=r"Cannot write .*phase-00\.npz: No space left on device"):
        folder.save_scores(0, {"x": np.arange(4)})
    assert folder.load_scores(0)["x"].tolist() == [0, 1, 2]
    assert len(list((folder.path / "scores").iterdir())) == 1


def test_a_full_disk_keeps_the_lines_of_finished_phases(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    folder.append_record(record(0))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunStopped, match=r"Cannot write .*phases\.jsonl: No space left on device"):
        folder.append_record(record(1))
    monkeypatch.undo()
    assert folder.records() == [record(0)]
    assert not list(folder.path.glob(".*part"))


def test_a_folder_that_cannot_be_made_stops_the_run(tmp_path: Path):
    run, _ = tiny_plan("finetune", tmp_path / "store")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStopped, match=r"Cannot create .*file/run: .*Choose another --store"):
        RunFolder(tmp_path / "file" / "run").create(run.info, run.config)
