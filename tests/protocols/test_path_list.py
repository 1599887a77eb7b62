"""Published lists of paths and labels: read in order, kept below their folder, compared with what is published."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from small_data import save_picture

from imbcil.harness.base.errors import BadInput, MissingData
from imbcil.harness.cli.main import main
from imbcil.protocols import catalogue as catalogue_module
from imbcil.protocols.catalogue import DatasetEntry, PublishedCounts, catalogue
from imbcil.protocols.inventory import inventory
from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import build_scenario
from imbcil.protocols.settings import ProtocolSettings

TRAIN = ["b/1.png 0", "a/1.png 1", "a/2.png 1", "a/3.png 1", "c/1.png 2"]
TEST = ["t/1.png 0", "t/2.png 1", "t/3.png 2"]


def tree(
    folder: Path, train: list[str] = TRAIN, test: list[str] = TEST, names=("train.txt", "test.txt")
) -> Path:
    for line in (*TRAIN, *TEST):
        save_picture(folder / line.split()[0])
    for name, lines in zip(names, (train, test), strict=True):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def imported(folder: Path, root: Path, name: str = "mine", said: list[str] | None = None):
    return import_dataset(name, folder, "lists", root, (said if said is not None else []).append, size=8)


def test_rows_keep_the_order_of_the_lists_and_classes_are_their_numbers(tmp_path) -> None:
    cached = imported(tree(tmp_path / "data"), tmp_path / "root")
    assert cached.splits["train"].labels.tolist() == [0, 1, 1, 1, 2]
    assert cached.splits["test"].labels.tolist() == [0, 1, 2]
    assert cached.meta.class_names == ("0", "1", "2")
    made = build_scenario(ProtocolSettings(protocol="static", dataset="mine"), data_root=tmp_path / "root")
    assert len(made.phases) == 1 and made.raw_counts[made.arrival_id].tolist() == [1, 3, 1]


@pytest.mark.parametrize(
    ("line", "said"),
    [("../out.png 0", "leaves the folder"), ("/etc/passwd 0", "leaves the folder"), ("a/../../x.png 0", "leaves the folder"),
     ("C:/x.png 0", "leaves the folder"), ("a\\..\\x.png 0", "leaves the folder"), ("a/1.png", "no relative path and a label"),
     ("a/1.png cat", "no relative path and a label"), ("a/1.png -1", "no relative path and a label"),
     ("a/1.png 100000", "no relative path and a label"), ("a/1.png 999999999999999999999", "no relative path and a label"),
     ("a/1.png 1", "is listed twice"), ("t/1.png 1", "is listed twice"), ("nowhere/9.png 1", "cannot be read"), ("a 1", "no ordinary file")],
)  # fmt: skip
def test_a_hostile_or_wrong_line_is_refused_with_its_place(line: str, said: str, tmp_path) -> None:
    folder = tree(tmp_path / "data", [*TRAIN, line])
    with pytest.raises(BadInput, match=said) as caught:
        imported(folder, tmp_path / "root")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "root").glob("mine/*/meta.json"))


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_link_that_leads_out_of_the_folder_is_refused(of: str, tmp_path) -> None:
    save_picture(tmp_path / "secret" / "1.png")
    folder = tree(tmp_path / "data", [*TRAIN, "link/1.png 1" if of == "folder" else "a/link.png 1"])
    if of == "folder":
        (folder / "link").symlink_to(tmp_path / "secret")
    else:
        (folder / "a" / "link.png").symlink_to(tmp_path / "secret" / "1.png")
    with pytest.raises(BadInput, match="leads out of"):
        imported(folder, tmp_path / "root")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda f: (f / "test.txt").unlink(), "has no test.txt"), (lambda f: (f / "train.txt").write_bytes(b"\xff\xfe\n"), "not UTF-8"),
     (lambda f: (f / "train.txt").write_text(""), "is empty")],
)  # fmt: skip
def test_a_bad_list_is_refused(spoil, said: str, tmp_path) -> None:
    folder = tree(tmp_path / "data")
    spoil(folder)
    with pytest.raises(BadInput, match=said):
        imported(folder, tmp_path / "root")


def test_a_list_beyond_its_limit_is_refused_by_size(tmp_path) -> None:
    folder = tree(tmp_path / "data")
    with (folder / "train.txt").open("r+b") as stream:
        stream.truncate((256 << 20) + 1)
    with pytest.raises(BadInput, match="larger than 256 MiB"):
        imported(folder, tmp_path / "root")


# --- the catalogued lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "figures"),
    [("places-lt", (62_500, 365, 4980, 5, 131, 163, 71, 36_500)), ("imagenet-lt", (115_846, 1000, 1280, 5, 385, 479, 136, 50_000)),
     ("inaturalist2018", (437_513, 8142, 1000, 2, 842, 3701, 3599, 24_426))],
)  # fmt: skip
def test_the_catalogue_has_the_published_counts_and_groups(
    name: str, figures: tuple[int, ...], tmp_path
) -> None:
    entry = catalogue()[name]
    known = entry.published
    assert known is not None
    assert figures == (
        entry.train_images, entry.classes, known.largest, known.smallest, known.many, known.medium, known.few, entry.test_images
    )  # fmt: skip
    assert known.many + known.medium + known.few == entry.classes
    item = next(item for item in inventory(tmp_path) if item["name"] == name)
    assert (item["train"], item["test"], item["state"]) == (entry.train_images, entry.test_images, "not here")
    assert item["groups"] == {"many": known.many, "medium": known.medium, "few": known.few}
    with pytest.raises(MissingData, match=f"images of {name} are not in .*{entry.path_lists[0]}"):
        build_scenario(
            ProtocolSettings(protocol="static", dataset=name), data_root=tmp_path, need_images=False
        )


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch):
    """A catalogued dataset with lists of five training images."""

    def use(**published: object) -> None:
        entry = DatasetEntry(
            name="tiny-lt", title="tiny", reader="lists", classes=3, train_images=5, test_images=3, size=8,
            path_lists=("L_train.txt", "L_test.txt"),
            published=PublishedCounts(**{"largest": 3, "smallest": 1, "many": 0, "medium": 0, "few": 3, **published}),
        )  # fmt: skip
        known = {**catalogue(), "tiny-lt": entry}
        monkeypatch.setattr(catalogue_module, "catalogue", lambda: known)
        monkeypatch.setattr("imbcil.protocols.library.catalogue", lambda: known)
        monkeypatch.setattr("imbcil.protocols.scenario.catalogue", lambda: known)

    return use


def test_the_published_lists_are_taken_under_their_name(listed, tmp_path) -> None:
    listed()
    folder = tree(tmp_path / "data", names=("L_train.txt", "L_test.txt"))
    cached = import_dataset("tiny-lt", folder, "auto", tmp_path / "root", [].append)
    assert len(cached.splits["train"].labels) == 5


def test_other_lists_are_refused_under_a_published_name_but_only_said_where_figures_are_recalled(
    listed, tmp_path
) -> None:
    folder = tree(tmp_path / "data", names=("L_train.txt", "L_test.txt"))
    listed(largest=4, few=2, medium=1)
    with pytest.raises(
        BadInput, match=r"3 images in the largest class, not 4; 0 medium classes, not 1; .*another name"
    ):
        import_dataset("tiny-lt", folder, "auto", tmp_path / "root", [].append)
    listed(largest=4, recalled=True)
    said: list[str] = []
    import_dataset("tiny-lt", folder, "auto", tmp_path / "root", said.append)
    assert any(
        "3 images in the largest class, not 4, as far as published figures are known" in line for line in said
    )


def test_the_command_line_says_it_in_one_sentence(tmp_path) -> None:
    folder = tree(tmp_path / "data", [*TRAIN, "../out.png 0"])
    result = CliRunner().invoke(
        main,
        [
            "data",
            "import",
            "mine",
            "--from",
            str(folder),
            "--kind",
            "lists",
            "--data-root",
            str(tmp_path / "root"),
        ],
    )
    assert result.exit_code == 2
    assert "line 6: the path '../out.png' leaves the folder of the list" in result.output
