"""Finished runs as CSV: what was written is what is read, and what is hostile is refused in one sentence."""

from dataclasses import replace

import pytest
from fake_runs import add_run, make_store

from imbcil.harness.base.errors import BadInput
from imbcil.reports.collect import collect
from imbcil.reports.exported import (
    LARGEST_FILE,
    PROJECT,
    export_csv,
    project_runs,
    read_exported,
    read_exported_file,
)


@pytest.fixture
def run(tmp_path):
    metrics = [
        {"phase/acc_task_mean": 50.125, "phase/acc_total": 1 / 3, "cost/train_s": 2.5},
        {"phase/acc_task_mean": 20.0, "phase/acc_total": 30.0, "phase/forgetting": 7.25, "cost/train_s": 3.0},
    ]
    settings = {"icarl.temperature": 2.0, "icarl.names": ["a", "β"]}
    add_run(make_store(tmp_path / "store"), "icarl", metrics=metrics, settings=settings, reduced=True, seed=3)
    (found,) = collect(make_store(tmp_path / "store")).finished
    return found


def text_of(run, old="", new=""):
    text = export_csv([run])
    assert old in text
    return text.replace(old, new, 1).encode()


def test_what_was_written_is_what_is_read(run):
    (found,) = read_exported(export_csv([run], "two cores").encode(), "x.csv", PROJECT)
    assert found.phases == run.phases and found.final == run.final
    kept = {"class_names", "raw_counts", "phases", "hardware", "command"}
    assert found.info.model_dump(exclude=kept) == run.info.model_dump(exclude=kept)
    assert found.info.hardware == "two cores" and found.origin == PROJECT
    assert [(p.lo, p.hi, p.train, p.test) for p in found.info.phases] == [(0, 1, 45, 10), (1, 2, 45, 10)]


def test_hardware_that_a_run_names_itself_is_not_overwritten(run):
    own = replace(run, info=run.info.model_copy(update={"hardware": "NVIDIA H200"}))
    (found,) = read_exported(export_csv([own], "two cores").encode(), "x.csv", PROJECT)
    assert found.info.hardware == "NVIDIA H200"


def test_no_folder_of_this_machine_is_written(run):
    own = run.info.model_copy(update={"settings": {"icarl.weights": "/home/me/secret/w.safetensors"}})
    text = export_csv([replace(run, info=own)])
    assert "secret" not in text and "w.safetensors" in text


def test_several_runs_with_other_metrics_share_a_file(run, tmp_path):
    other = replace(run, info=run.info.model_copy(update={"run_key": "f" * 16, "seed": 4}))
    other = replace(other, phases=tuple({"phase/map": 3.0} for _ in run.phases))
    found = read_exported(export_csv([other, run]).encode(), "x.csv", PROJECT)
    assert [r.info.seed for r in found] == [3, 4]
    assert found[1].phases == other.phases


def test_the_shipped_files_can_be_read():
    runs = project_runs()
    assert {run.origin for run in runs} <= {PROJECT}
    assert len({run.info.run_key for run in runs}) == len(runs)


HOSTILE = {
    "no text": (b"\xff\xfe\x00", "is no UTF-8 text"),
    "nothing": (b"", "is empty"),
    "open quote": (b'run_key,phase\n"abc', "is no CSV file"),
    "huge cell": (b"run_key,phase,classes\n" + b"a" * 200_000, "is no CSV file"),
    "other table": (b"name,value\na,1\n", "unknown column 'name'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_are_no_export_are_refused(case):
    content, said = HOSTILE[case]
    with pytest.raises(BadInput, match=said) as caught:
        read_exported(content, "x.csv", PROJECT)
    assert str(caught.value).startswith("x.csv")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("50.125", "nan", "no finite number"),
        ("50.125", "1e999", "no finite number"),
        ("50.125", "=cmd()", "no finite number"),
        ("released", "best", "preset = 'best'"),
        ("icarl,icarl", "ica\x1b[31mrl,icarl", "control characters"),
        ('"{""icarl', '"{{""icarl', "is no JSON"),
        ("β", "\\u001b[2J", "control characters"),
        ('""a""', "[" * 9000 + '""a""' + "]" * 9000, "is no JSON"),
        ('""a""', '""' + "a" * 20_001 + '""', "more than 20000 signs"),
        ("run_key,", "run_key,run_key,", "is there twice"),
        (",phase,", ",phse,", "unknown column 'phse'; did you mean"),
        (",1,1,50,45,10", ",0,1,50,45,10", "must be 0, 1, 2"),
        (",1,1,50,45,10", ",1,-1,50,45,10", "no whole number"),
        (",1,1,50,45,10", ",1,1,50,45", "cells under"),
        ("0000000000000001", "../../etc/passwd", "is no run key"),
    ],
    ids=lambda value: value[:20],
)
def test_damaged_and_hostile_cells_are_refused_with_file_and_line(run, old, new, said):
    with pytest.raises(BadInput, match=said) as caught:
        read_exported(text_of(run, old, new), "x.csv", PROJECT)
    assert str(caught.value).startswith("x.csv") and "\n" not in str(caught.value)


def test_a_run_that_two_lines_describe_otherwise_is_refused(run):
    text = export_csv([run]).splitlines()
    text[2] = text[1].replace("icarl", "replay")
    with pytest.raises(BadInput, match=r"line 3: run 0+1 is described otherwise than in line 2"):
        read_exported("\n".join(text).encode(), "x.csv", PROJECT)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.csv"
    with path.open("wb") as stream:
        stream.truncate(LARGEST_FILE + 1)
    with pytest.raises(BadInput, match="larger than 32 MiB"):
        read_exported_file(path)
    with pytest.raises(BadInput, match="Cannot read"):
        read_exported_file(tmp_path / "nowhere.csv")
