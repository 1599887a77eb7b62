"""Importing pictures in files: folders, CSV lists, ImageNet and Food-101."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import save_picture, write_tree
from torchvision.transforms import functional as transforms

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.catalogue import catalogue
from imbcil.protocols.datasets import pictures
from imbcil.protocols.datasets.csv_list import read_csv_list
from imbcil.protocols.datasets.folder import read_folder
from imbcil.protocols.datasets.food101 import read_food101
from imbcil.protocols.datasets.imagenet import read_imagenet, subset_indices
from imbcil.protocols.datasets.pictures import fit_picture, read_picture
from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario


@pytest.mark.parametrize("shape", [(50, 37), (37, 50), (31, 31), (100, 33), (24, 24), (20, 15)])
def test_a_picture_is_stored_as_torchvision_resizes_and_crops_it(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    expected = np.asarray(transforms.center_crop(transforms.resize(picture, [24]), [24]))
    assert np.array_equal(fit_picture(picture, 24), expected)


def test_a_folder_tree_becomes_a_dataset(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    tree = write_tree(tmp_path / "tree", {"bee": 4, "ant": 3, "cat": 5}, test="val")
    (tree / "train" / "ant" / "notes.txt").write_text("not a picture")
    import_dataset("small", tree, "auto", root, lambda line: None)
    built = scenario_of()
    assert built.class_names == ("ant", "bee", "cat")
    assert built.raw_counts.tolist() == [3, 4, 5]
    assert built.images is not None
    assert built.images.train.shape == (12, 9, 9, 3)
    assert built.images.train[3, 0, 0].tolist() == [0, 0, 7]  # the first bee; bee was written first
    assert built.images.mean == (0.485, 0.456, 0.406)


def test_pictures_are_stored_at_the_size_that_is_asked_for(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    import_dataset(
        "small", write_tree(tmp_path / "tree", {"a": 2, "b": 2, "c": 2}), "auto", root, lambda line: None, 6
    )
    for asked, stored, seen in (({}, 6, 6), ({"size": 4}, 4, 4), ({"size": 4, "resize": 5}, 5, 4)):
        images = scenario_of(data=asked).images
        assert images is not None
        assert (images.train.shape[1], images.test.shape[1], images.size) == (stored, stored, seen)


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ([], "is no folder"),
        (["ant/0.png"], "needs the folders train"),
        (["train/ant/0.png"], "needs the folders train"),
        (["train/0.png", "test/0.png"], "has no class folders"),
        (["train/ant/0.txt", "test/ant/0.png"], "no train images"),
        (["train/ant/0.png", "test/ant/0.txt"], "no test images"),
        (["train/ant/0.png", "test/bee/0.png"], "no such class among the training images"),
    ],
)
def test_a_folder_without_what_is_needed_is_refused(files: list[str], part: str, tmp_path: Path) -> None:
    for file in files:
        if file.endswith(".png"):
            save_picture(tmp_path / "tree" / file)
        else:
            (tmp_path / "tree" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / file).write_text("nothing")
    with pytest.raises(BadInput, match=part):
        read_folder(tmp_path / "tree")


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n cut"])
def test_a_picture_that_cannot_be_read_is_named_and_nothing_is_imported(
    content: bytes, tmp_path: Path, root: Path
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 3, "b": 3})
    (tree / "train" / "b" / "001.png").write_bytes(content)
    with pytest.raises(BadInput, match=r"b/001.png cannot be read as a picture"):
        import_dataset("small", tree, "auto", root, lambda line: None)
    assert not list(root.glob("small/*/meta.json"))
    assert not (root / "small" / "source.json").exists()


def test_a_picture_that_would_unpack_to_gigabytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    save_picture(path, size=(400, 300))
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100_000)
    with pytest.raises(BadInput, match="has 400 x 300 pixels"):
        read_picture(path, 8)


def test_a_link_that_leads_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 2})
    save_picture(tmp_path / "outside.png")
    (tree / "train" / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(BadInput, match=r"link.png is a link that leads out"):
        read_folder(tree)


def write_csv(folder: Path, text: str) -> Path:
    for name in ("0.png", "1.png", "2.png", "3.png"):
        save_picture(folder / "images" / name, (int(name[0]), 0, 0))
    path = folder / "list.csv"
    path.write_bytes(text.encode())
    return path


def test_a_csv_lists_paths_labels_and_splits_in_its_own_order(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    lines = "split,label,path\ntrain,10,images/2.png\ntrain,9,images/1.png\ntest,9,images/0.png\nval,10,images/3.png\n"
    import_dataset("small", write_csv(tmp_path, lines), "auto", root, lambda line: None)
    built = scenario_of(n_tasks=2)
    assert built.class_names == ("9", "10")  # numbers are sorted as numbers
    assert built.images is not None
    assert built.images.train[:, 0, 0, 0].tolist() == [2, 1]
    assert built.images.test_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "column 'path' is missing"),
        ("path,label\nimages/0.png,a\n", "column 'split' is missing"),
        ("path,label,split\nimages/0.png,a,train\n", "no test images"),
        ("path,label,split\nimages/0.png,a,dev\n", "line 2: split = 'dev'"),
        ("path,label,split\nimages/0.png,,train\n", "line 2: path and label"),
        ("path,label,split\nimages/0.png\n", "line 2: path and label"),
        ("path,label,split\n../secret.png,a,train\n", "line 2: the path .* leaves the folder"),
        ("path,label,split\nimages/../../x.png,a,train\n", "leaves the folder"),
        ("path,label,split\n/etc/passwd,a,train\n", "leaves the folder"),
        ("path,label,split\nC:\\x.png,a,train\n", "leaves the folder"),
        ("path,label,split\n..\\x.png,a,train\n", "leaves the folder"),
        ("path,label,split\nimages/9.png,a,train\nimages/0.png,a,test\n", "9.png cannot be read"),
        (
            "path,label,split\nimages/0.png,a,train\nimages/1.png,b,test\n",
            "the class b, which no training image has",
        ),
    ],
)
def test_a_csv_with_a_wrong_line_is_refused_and_the_line_named(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=part):
        read_csv_list(write_csv(tmp_path, text))


def test_a_csv_that_leaves_its_folder_by_a_link_is_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "outside" / "x.png")
    path = write_csv(tmp_path / "here", "path,label,split\naway/x.png,a,train\nimages/0.png,a,test\n")
    (tmp_path / "here" / "away").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput, match="away is a link that leads out"):
        read_csv_list(path)
    path.write_text("path,label,split\nx.png,a,train\nimages/0.png,a,test\n")
    (tmp_path / "here" / "x.png").symlink_to(tmp_path / "outside" / "x.png")
    with pytest.raises(BadInput, match=r"x\.png is a link that leads out"):
        read_csv_list(path)


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,label,split\n\xff\xfe\x00\x01,a,train\n")
    with pytest.raises(BadInput, match="cannot be read as a CSV in UTF-8"):
        read_csv_list(path)


def test_the_subset_of_imagenet_has_the_published_classes() -> None:
    assert subset_indices()[:8] == (54, 7, 894, 512, 126, 337, 988, 11)
    assert subset_indices()[-4:] == (260, 911, 446, 44)
    assert len(set(subset_indices())) == 100


def imagenet_folder(folder: Path, wnids: list[str]) -> Path:
    for number, wnid in enumerate(wnids):
        save_picture(folder / "train" / wnid / "b.JPEG", (number // 10, 0, 0), (8, 8))
        save_picture(folder / "train" / wnid / "a.JPEG", (number // 10, 0, 0), (8, 8))
        save_picture(folder / "val" / wnid / "v.JPEG", (number // 10, 0, 0), (8, 8))
    return folder


def test_the_subset_is_found_in_the_thousand_folders_and_in_its_own_hundred(tmp_path: Path) -> None:
    wnids = [f"n{number:08d}" for number in range(1000)]
    whole = read_imagenet(imagenet_folder(tmp_path / "whole", wnids), 8, subset=True)
    assert whole.class_names == tuple(wnids[index] for index in subset_indices())
    assert (len(whole.splits["train"].labels), len(whole.splits["test"].labels)) == (200, 100)
    cut = read_imagenet(imagenet_folder(tmp_path / "cut", sorted(whole.class_names)), 8, subset=True)
    assert cut.class_names == whole.class_names
    assert read_imagenet(tmp_path / "whole", 8, subset=False).class_names == tuple(wnids)
    with pytest.raises(BadInput, match="has 100 class folders; ImageNet has 1000"):
        read_imagenet(tmp_path / "cut", 8, subset=False)


def test_the_long_tail_of_the_subset_keeps_the_first_images_of_a_class_and_sees_224_of_256_pixels(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    wnids = [f"n{number:08d}" for number in range(100)]
    import_dataset(
        "imagenet-subset", imagenet_folder(tmp_path / "cut", wnids), "auto", root, lambda line: None
    )
    built = scenario_of(dataset="imagenet-subset-lt", order="shuffled", n_tasks=10, rho=2.0)
    assert built.images is not None
    assert (built.images.train.shape[1:], built.images.size) == ((256, 256, 3), 224)
    rows = np.concatenate([phase.train_before_holdout for phase in built.phases])
    assert built.raw_counts.sum() == len(rows) < 200
    ones = [label for label, count in zip(built.order, built.raw_counts, strict=True) if count == 1]
    first = {label: int(np.flatnonzero(built.images.train_labels == label)[0]) for label in ones}
    assert set(first.values()) <= set(rows.tolist())


def food_folder(folder: Path, names: list[str]) -> Path:
    for split, numbers in (("train", (3, 1)), ("test", (2,))):
        (folder / "meta").mkdir(parents=True, exist_ok=True)
        lines = [f"{name}/{number}" for name in names for number in numbers]
        (folder / "meta" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            save_picture(folder / "images" / f"{line}.jpg", (int(line.split("/")[1]), 0, 0), (8, 8))
    return folder


def test_food_is_read_in_the_order_of_its_lists(tmp_path: Path) -> None:
    source = read_food101(food_folder(tmp_path / "food-101", ["apple_pie", "baby_back_ribs"]).parent, 8)
    assert source.class_names == ("apple_pie", "baby_back_ribs")
    assert source.splits["train"].labels.tolist() == [0, 0, 1, 1]
    assert source.splits["train"].piece(np.arange(4))()[:, 0, 0, 0].tolist() == pytest.approx(
        [3, 1, 3, 1], abs=2
    )


@pytest.mark.parametrize("line", ["../x/1", "apple_pie", "apple_pie/../1", "a/b/c"])
def test_a_food_list_with_a_path_in_it_is_refused(line: str, tmp_path: Path) -> None:
    folder = food_folder(tmp_path / "food-101", ["apple_pie"])
    (folder / "meta" / "train.txt").write_text(line + "\n")
    with pytest.raises(BadInput, match="is not of the form class/number"):
        read_food101(folder, 8)


def test_a_folder_that_is_not_food_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_food101(tmp_path, 8)


def test_the_recipes_sizes_of_the_list_datasets_are_those_of_the_released_transforms() -> None:
    asked = {
        name: (catalogue()[name].resize, catalogue()[name].size) for name in ("imagenet-subset", "food101")
    }
    assert asked == {"imagenet-subset": (256, 224), "food101": (224, 224)}


def test_what_is_no_ordinary_file_is_refused_and_never_waited_for(tmp_path: Path, root: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 2})
    os.mkfifo(tree / "train" / "a" / "pipe.png")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadInput, match=r"pipe.png is no ordinary file"):
        read_folder(tree)
    with pytest.raises(BadInput, match=r"pipe.npz is no ordinary file"):
        import_dataset("small", tmp_path / "pipe.npz", "auto", root, lambda line: None)
