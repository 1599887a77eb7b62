"""`imbcil-bench data`: list, import, check, and what it says when something is wrong."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from urllib.error import URLError

import numpy as np
import pytest
from console import Cli
from PIL import Image

from imbcil.harness.base.errors import MissingData
from imbcil.protocols import download
from imbcil.protocols.library import read_record


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Three classes of 20 training and 4 test images."""
    path = tmp_path / "mine.npz"
    generator = np.random.default_rng(0)
    np.savez(
        path,
        x_train=generator.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        y_train=np.repeat(np.arange(3), 20),
        x_test=generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        y_test=np.repeat(np.arange(3), 4),
        class_names=np.array(["ant", "bee", "cat"]),
    )
    return path


def refused(done: CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_imported_arrays_are_a_dataset_from_then_on(cli: Cli, arrays: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = cli("data", "import", "mine", "--from", arrays, "--data-root", root)
    assert done.returncode == 0
    assert done.stdout.startswith("mine: 3 classes, 60 training and 12 test images, stored at 8 pixels.")
    shown = cli(
        "show", "protocol", "lfs", "--n-tasks", "3", "--dataset", "mine-lt", "--rho", "10", "--order", "ordered",
        "--data-root", root, "--json",
    )  # fmt: skip
    record = json.loads(shown.stdout)
    assert record["class_names"] == ["ant", "bee", "cat"]
    assert record["class_counts"] == [20, 6, 2]
    assert "mine has no recipe of its own" in shown.stderr
    assert cli("data", "check", "--data-root", root).stdout == "mine: 72 of 72 images decoded, 0 damaged.\n"


def test_the_list_says_what_is_here_and_where_it_came_from(cli: Cli, arrays: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    cli("data", "import", "mine", "--from", arrays, "--data-root", root)
    listed = {
        item["name"]: item for item in json.loads(cli("data", "list", "--data-root", root, "--json").stdout)
    }
    assert listed["mine"]["state"] == "imported"
    assert listed["mine"]["from"] == str(arrays)
    assert (listed["mine"]["classes"], listed["mine"]["train"], listed["mine"]["test"]) == (3, 60, 12)
    assert listed["cifar100"]["state"] == "not here"
    assert listed["glyphs100"]["state"] == "rendered on first use"
    text = cli("data", "list", "--data-root", root).stdout
    assert f"imported from {arrays}" in text
    assert len({line.find("state") for line in text.splitlines()[:1]}) == 1


def test_one_damaged_record_does_not_hide_the_other_datasets(cli: Cli, arrays: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("mine", "yours"):
        cli("data", "import", name, "--from", arrays, "--data-root", root)
    (root / "mine" / "source.json").write_text("{")
    done = cli("data", "list", "--data-root", root)
    assert done.returncode == 0
    states = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "source.json is damaged: import it again" in states["mine"]
    assert f"imported from {arrays}" in states["yours"]


def test_each_dataset_named_to_the_check_has_to_be_there(cli: Cli, arrays: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    cli("data", "import", "mine", "--from", arrays, "--data-root", root)
    done = cli("data", "check", "mine", "cifar100", "--data-root", root)
    assert "cifar100 has no decoded images" in refused(done)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["import", "mine", "--from", "nowhere.npz"], "nowhere.npz does not exist"),
        (["import", "mine-lt", "--from", "."], "is made from 'mine'"),
        (["import", "../mine", "--from", "."], "dataset name '../mine'"),
        (["import", "mine", "--from", ".", "--kind", "coco"], "has no annotations/instances_train.json"),
        (["import", "mine", "--from", ".", "--kind", "fodler"], "did you mean folder"),
        (["import", "mine", "--from", "."], "needs the folders train/CLASS/ and test/CLASS/"),
        (["import", "mine"], "--from"),
        (["check", "cifar1000"], "did you mean cifar100"),
        (["check", "cifar100lt"], "did you mean cifar100-lt"),
        (["check", "CIFAR100"], "did you mean cifar100"),
        (["check", "cifar100-lt"], "cifar100-lt is made from cifar100, whose images it uses: name that one"),
        (["download", "cifar100-lt"], "cifar100-lt is made from cifar100"),
        (["check", "cifar100"], "there is nothing to check"),
        (["download", "glyphs100"], "is rendered on first use"),
        (["download", "imagenet"], "cannot be downloaded"),
        (["download", "nothing"], "There is no dataset called 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    cli: Cli, arguments: list[str], part: str, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    done = cli("data", *arguments, "--data-root", tmp_path / "root", cwd=tmp_path / "here")
    assert part in refused(done)
    assert not (tmp_path / "root").exists()


def test_without_a_network_the_file_that_is_wanted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> Path:
        raise URLError("Name or service not known")

    monkeypatch.setattr(download, "_fetch_cifar", offline)
    with pytest.raises(
        MissingData, match=r"could not be downloaded.*data import cifar10 .*cifar-10-python.tar.gz"
    ):
        download.download_dataset("cifar10", tmp_path, lambda line: None)
    assert read_record(tmp_path / "cifar10") is None


def write_kit(kit: Path) -> Path:
    """A development kit of three images, one of which is cut short."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (kit / folder).mkdir(parents=True)
    for name in ("0a", "0b", "0c"):
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(kit / "JPEGImages" / f"{name}.jpg")
        (kit / "Annotations" / f"{name}.xml").write_text(
            "<annotation><object><name>cat</name></object><object><name>dog</name></object></annotation>"
        )
    (kit / "ImageSets/Main/train.txt").write_text("0a\n0b\n")
    (kit / "ImageSets/Main/val.txt").write_text("0c\n")
    broken = kit / "JPEGImages" / "0b.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])
    return kit


def test_a_broken_image_of_several_labels_is_refused_or_skipped_and_listed(cli: Cli, tmp_path: Path) -> None:
    arguments = (
        "data",
        "import",
        "mine",
        "--from",
        write_kit(tmp_path / "kit"),
        "--data-root",
        tmp_path / "root",
    )
    said = refused(cli(*arguments))
    assert "0b.jpg cannot be read as a picture" in said and "--skip-broken" in said
    assert not list((tmp_path / "root").glob("mine/*/meta.json"))
    done = cli(*arguments, "--skip-broken")
    assert done.returncode == 0
    assert "1 broken entry was left out:" in done.stderr and "0b.jpg" in done.stderr
    assert "2 classes, 1 training and 1 test images" in done.stdout and "--protocol mlcil" in done.stdout
