"""`imbcil-bench show protocol`: phases, classes, sizes, digest, and the picture."""

import json
from pathlib import Path

import pytest
from console import Cli
from PIL import Image

CIFAR = [
    "protocol",
    "lfs",
    "--n-tasks",
    "10",
    "--dataset",
    "cifar100-lt",
    "--order",
    "shuffled",
    "--recipe",
    "paper",
]


def test_sizes_are_shown_without_images_and_the_digest_is_null(cli: Cli, tmp_path: Path) -> None:
    record = json.loads(cli("show", *CIFAR, "--data-root", tmp_path / "empty", "--json").stdout)
    assert record["digest"] is None
    assert record["recipe"] == "paper"
    assert record["phases"][0] == {
        "phase": 0,
        "classes": [68, 56, 78, 8, 23, 84, 90, 65, 74, 76],
        "train_before_holdout": 655,
        "train": 590,
        "holdout": 65,
        "test": 1000,
    }
    assert [phase["train"] for phase in record["phases"]] == [
        590,
        1082,
        1086,
        1193,
        768,
        801,
        1189,
        1213,
        1343,
        490,
    ]
    assert record["totals"] == {"train_before_holdout": 10847, "train": 9755, "holdout": 1092, "test": 10000}


def test_the_quirk_and_the_hold_out_are_settings(cli: Cli, tmp_path: Path) -> None:
    def train(*more: str) -> int:
        done = cli("show", *CIFAR, "--data-root", tmp_path / "empty", "--json", *more)
        return json.loads(done.stdout)["totals"]["train"]

    assert train("--set", "data.holdout=0") == 10847
    profile = [int(500 * 0.01 ** (rank / 99)) for rank in range(100)]
    own_shares = sum(count - round(0.1 * count) for count in profile)  # half to even, as numpy rounds
    assert train("--set", "data.holdout_quirk=false") == own_shares == 9758


def test_embedded_data_show_their_digest_and_the_same_one_each_time(cli: Cli, tmp_path: Path) -> None:
    first, second = (cli("show", "protocol", "lfs", "--n-tasks", "5") for _ in range(2))
    assert first.stdout == second.stdout
    assert "lfs-5 on glyphs100-lt, order shuffled, imbalance exp rho 100" in first.stdout
    digest = next(line for line in first.stdout.splitlines() if line.startswith("digest: "))
    assert len(digest) == len("digest: ") + 64


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_profile_is_drawn_to_a_file(cli: Cli, suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"profile.{suffix}"
    done = cli("show", *CIFAR, "--data-root", tmp_path / "empty", "--out", out)
    assert done.returncode == 0
    assert "digest: none" in done.stdout
    content = out.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    if suffix == "png":
        with Image.open(out) as picture:
            assert (
                len(picture.convert("RGB").getcolors(1 << 24)) > 10
            )  # bars, lines and text, not a blank page


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["lfz"], "did you mean lf"),
        (["lfs", "--n-tasks", "0"], "--n-tasks"),
        (["lfs", "--n-tasks", "101"], "there are only 100 classes"),
        (["lfs", "--sizes", "50,49"], "sum to 99, the dataset has 100"),
        (["lfs", "--sizes", "50,x"], "no list of whole numbers"),
        (["lfs", "--order", "sorted"], "order = sorted"),
        (["lfs", "--dataset", "cifar100lt"], "did you mean cifar100"),
        (["lfs", "--dataset", "cifar100", "--rho", "10"], "rho = 10"),
        (["lfs", "--dataset", "cifar100-lt", "--rho", "0.1"], "rho"),
        (["lfs", "--recipe", "papers"], "did you mean paper"),
        (["lfs", "--set", "data.holdout=2"], "holdout = 2"),
        (["lfs", "--set", "data.hold_out=0.1"], "did you mean holdout"),
        (["lfs", "--out", "picture.jpg"], "has to end in .png"),
        (["lfs", "--out", "no/such/folder.png"], "cannot be written"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(cli: Cli, arguments: list[str], part: str) -> None:
    done = cli("show", "protocol", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert part in done.stderr.splitlines()[-1]
