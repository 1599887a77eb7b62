"""Importing images of several labels: PASCAL VOC, COCO, CSV lists and the long-tailed lists of both."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multi_data import KIT, LIST, TRAIN, write_coco, write_kit, write_list, write_xml
from PIL import Image
from torchvision.transforms import functional as transforms

from imbcil.harness.request import RunRequest
from imbcil.harness.scenario_request import resolve_recipe
from imbcil.protocols.catalogue import catalogue
from imbcil.protocols.datasets import voc
from imbcil.protocols.datasets.faults import Faults
from imbcil.protocols.datasets.mlt import list_names, read_coco_mlt, read_voc_mlt
from imbcil.protocols.datasets.pictures import read_picture, stretch_picture
from imbcil.protocols.datasets.readers import guess_kind, read_source
from imbcil.protocols.datasets.source import CROWD, DIFFICULT, POSITIVE, Source
from imbcil.protocols.download import download_dataset
from imbcil.protocols.inventory import inventory, inventory_lines
from imbcil.protocols.library import import_dataset, open_dataset, read_record
from imbcil.protocols.scenario import Scenario, labels_of

Quiet = Callable[[str], None]
P, D, C = POSITIVE, DIFFICULT, CROWD


def codes(source: Source, split: str) -> list[list[int]]:
    targets = source.splits[split].targets
    assert targets is not None
    return targets.tolist()


@pytest.mark.parametrize(
    "place",
    [".", "VOC2007", "voc2007", "VOCdevkit/VOC2007", "VOC2007/VOCdevkit/VOC2007"],
)
def test_a_kit_is_found_where_people_keep_it_and_read_in_order_of_image_names(
    place: str, tmp_path: Path
) -> None:
    write_kit(tmp_path / "data" / place, KIT)
    source = voc.read_voc(tmp_path / "data", 6, "2007", ("trainval", "test"), Faults())
    assert source.class_names == voc.CLASSES
    chair, car, person, horse, train = (
        voc.CLASSES.index(x) for x in ("chair", "car", "person", "horse", "train")
    )
    expected = np.zeros((4, 20), int)
    expected[0, chair] = P  # one of two chairs is not difficult
    expected[1, [car, person]] = P, D
    expected[2, [person, horse]] = P
    expected[3, train] = P
    assert codes(source, "train") == expected.tolist()
    assert codes(source, "test")[1][chair] == D
    images = source.splits["train"].piece(np.array([2, 0]))()
    assert images.shape == (2, 6, 6, 3)
    assert np.abs(images[:, 3, 3].astype(int) - [[0, 2, 7], [0, 0, 7]]).max() <= 2  # JPEG


def test_a_kit_may_have_its_test_images_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for names in (
        ("VOCtrainval2007/VOCdevkit/VOC2007", "VOCtest2007/VOCdevkit/VOC2007"),
        ("VOC2007_train", "VOC2007_test"),
    ):
        root = tmp_path / names[0].split("/")[0]
        for place, split in zip(names, KIT, strict=True):
            write_kit(root / place, {split: KIT[split]})
        source = voc.read_voc(root, 6, "2007", ("trainval", "test"), Faults())
        assert [len(source.splits[split].labels) for split in ("train", "test")] == [4, 2]


def test_the_lists_of_a_year_are_not_taken_from_a_kit_of_another(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "VOC2007", {"train": KIT["trainval"], "val": KIT["test"]})
    with pytest.raises(Exception, match=r"has no ImageSets/Main/train.txt, neither there nor in VOC2012"):
        voc.read_voc(kit, 6, "2012", ("train", "val"), Faults())


def test_a_kit_of_ones_own_has_the_classes_of_its_training_objects(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", {"train": KIT["trainval"], "val": KIT["test"]})
    assert guess_kind(kit, "auto", None) == "voc"
    source = read_source("voc", kit, None, None)
    assert source.class_names == ("car", "chair", "horse", "person", "train")
    assert (len(source.splits["test"].labels), source.size) == (2, 9)
    (kit / "classes.txt").write_text("train\nperson\nhorse\nchair\nzebra\ncar\n")
    assert read_source("voc", kit, 6, None).class_names[-1] == "zebra"
    assert read_source("voc", kit, 6, None).notes == ("No training image shows zebra.",)


def test_coco_is_numbered_by_sorted_name_and_read_in_order_of_image_ids(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "mine")
    assert guess_kind(root, "auto", None) == "coco"
    source = read_source("coco", root, 6, None)
    assert source.class_names == ("apple", "cat", "zebra")
    assert codes(source, "train") == [[0, P, C], [P, 0, P]]  # ids 4 and 9; 30 has no label
    assert codes(source, "test") == [[0, 0, 0], [0, P, 0]]  # a test image without a label stays
    assert source.notes == ("1 training image without a label was left out.",)


@pytest.mark.parametrize(
    ("lists", "folders"),
    [
        ("annotations/instances_train2014.json", ("train2014", "val2014")),
        ("annotations/instances_train2014.json", ("train", "val")),
        ("annotations/instances_train2014.json", ("images/train2014", "images/val2014")),
        ("instances_train2014.json", ("train2014", "val2014")),
    ],
)
@pytest.mark.parametrize("base", [".", "coco", "coco2014"])
def test_coco_is_found_where_people_keep_it(
    lists: str, folders: tuple[str, str], base: str, tmp_path: Path
) -> None:
    written = write_coco(tmp_path / "written", folders=("train2014", "val2014"))
    root = tmp_path / "root" / base
    for split, folder in zip(("train", "val"), folders, strict=True):
        place = root / lists.replace("train", split)
        place.parent.mkdir(parents=True, exist_ok=True)
        (written / "annotations" / f"instances_{split}2014.json").rename(place)
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        (written / f"{split}2014").rename(root / folder)
    from imbcil.protocols.datasets.coco import read_coco

    assert len(read_coco(tmp_path / "root", 6, "2014", Faults()).splits["train"].labels) == 2


def test_a_csv_of_several_labels_keeps_its_order(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    import_dataset("small", write_list(tmp_path, LIST), "auto", root, lambda line: None)
    built = scenario_of(protocol="mlcil", n_tasks=None, sizes=(2, 1))
    assert built.class_names == ("ant", "cat", "dog")
    assert labels_of("static", "small", root) == "multi"
    assert built.images is not None and built.images.train_targets is not None
    assert built.images.train_targets.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert built.images.test_targets is not None
    assert built.images.test_targets.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert [phase.train.tolist() for phase in built.phases] == [[0, 1], [0]]
    assert [phase.test.tolist() for phase in built.phases] == [[0], [0]]
    assert built.images.test.shape[0] == 2 and built.images.test[1, 0, 0].tolist() == [3, 0, 0]


def test_an_imported_dataset_is_decoded_again_at_another_size_from_what_it_came_from(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    import_dataset("small", write_kit(tmp_path / "kit", KIT), "voc", root, lambda line: None, 6)
    shapes = set()
    for data in ({}, {"size": 4}, {"size": 4, "resize": 5}):
        images = scenario_of(protocol="mlcil", n_tasks=2, data=data).images
        assert images is not None
        shapes.add((images.train.shape[1:3], images.size))
    assert shapes == {((6, 6), 6), ((4, 4), 4), ((5, 5), 4)}


@pytest.mark.parametrize("shape", [(50, 37), (20, 31), (24, 24)])
def test_several_labels_are_stored_as_torchvision_resizes_the_whole_picture(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    assert np.array_equal(stretch_picture(picture, 24), np.asarray(transforms.resize(picture, [24, 24])))


@pytest.mark.parametrize(
    ("mode", "colour"), [("L", 90), ("CMYK", (10, 100, 200, 0)), ("RGB", (1, 2, 3)), ("P", 3)]
)
def test_grey_and_cmyk_pictures_become_three_channels(mode: str, colour: Any, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{'png' if mode == 'P' else 'jpg'}"
    Image.new(mode, (12, 9), colour).save(path)
    image = read_picture(path, 6, stretch=True)
    assert image.shape == (6, 6, 3) and image.dtype == np.uint8
    if mode == "L":
        assert (image == 90).all()
    if mode == "CMYK":
        assert np.abs(image[0, 0].astype(int) - [245, 155, 55]).max() <= 3


def test_voc_mlt_takes_the_listed_images_and_counts_difficult_objects(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    write_kit(tmp_path / "VOCdevkit" / "VOC2012", {"trainval": KIT["trainval"]})
    write_kit(tmp_path / "VOCdevkit" / "VOC2007", {"test": KIT["test"]})
    with pytest.raises(
        Exception, match=r"has none of img_id.txt, .*published list of training images belongs there"
    ):
        read_voc_mlt(tmp_path, 6, Faults())
    (tmp_path / "img_id.txt").write_text("000012\n000007\n")
    said: list[str] = []
    import_dataset("voc-mlt", tmp_path, "auto", root, said.append, 6)
    assert "These are 2 training and 2 test images; voc-mlt has 1,142 and 4,952." in said
    built = scenario_of(protocol="mlcil", dataset="voc-mlt", n_tasks=None, sizes=(20,))
    assert built.switches == {"difficult": "positive", "crowd": "include"}
    assert built.images is not None and built.images.train_targets is not None
    assert [np.flatnonzero(row).tolist() for row in built.images.train_targets] == [[6, 14], [18]]
    changed = scenario_of(
        protocol="mlcil", dataset="voc-mlt", n_tasks=None, sizes=(20,), data={"difficult": "negative"}
    )
    assert changed.images is not None and changed.images.train_targets is not None
    assert np.flatnonzero(changed.images.train_targets[0]).tolist() == [6]


def test_coco_mlt_takes_the_listed_images_by_number(tmp_path: Path) -> None:
    train = {
        **TRAIN,
        "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 4, "file_name": "000000000004.jpg"}],
    }
    write_coco(tmp_path, train)
    (tmp_path / "longtail2017").mkdir()
    path = tmp_path / "longtail2017" / "img_id.pkl"
    path.write_text("9\n")
    source = read_coco_mlt(tmp_path, 6, Faults())
    assert codes(source, "train") == [[P, 0, P]]
    assert len(source.splits["test"].labels) == 2
    path.write_text("9\n11\n")
    with pytest.raises(Exception, match="names the image 11, and train2017 has no such image"):
        read_coco_mlt(tmp_path, 6, Faults())
    path.write_bytes(b"\x80\x04\x95\x10")  # a real pickle
    with pytest.raises(Exception, match=r"img_id.pkl.*(no text in UTF-8|no image id)"):
        read_coco_mlt(tmp_path, 6, Faults())


def test_a_list_with_paths_and_labels_is_read_for_its_images(tmp_path: Path) -> None:
    (tmp_path / "lt.txt").write_text("JPEGImages/2008_000023.jpg 3 14\n\nJPEGImages/2008_000028.jpg 6\n")
    assert list_names(tmp_path / "lt.txt") == ["2008_000023", "2008_000028"]


def test_the_published_long_tailed_lists_have_the_published_counts(shared_data: Path, tmp_path: Path) -> None:
    import json

    listed = json.loads((shared_data / "class_lists" / "mlt_lists.json").read_text())["voc_mlt"]
    (tmp_path / "img_id.txt").write_text("\n".join(listed["train_img_id"]))
    names = list_names(tmp_path / "img_id.txt")
    assert len(names) == 1142
    boxes = {}
    for line in (shared_data / "voc_annotations" / "torchcv" / "voc12_trainval.txt").read_text().splitlines():
        name, *numbers = line.split()
        boxes[name.removesuffix(".jpg")] = {int(number) for number in numbers[4::5]}
    counts = [sum(label in boxes[name] for name in names) for label in range(20)]
    assert counts == [6, 34, 8, 14, 154, 17, 249, 29, 479, 4, 240, 48, 11, 20, 775, 100, 5, 82, 7, 64]


def test_real_images_of_voc_and_coco_are_imported(shared_data: Path) -> None:
    """Without decoding them all: labels, order and a few pictures."""
    small = read_source("voc", shared_data / "voc_small", 32, catalogue()["voc2012"])
    assert (len(small.splits["train"].labels), len(small.splits["test"].labels)) == (2404, 1204)
    assert small.class_names == voc.CLASSES and small.notes == ("No training image shows aeroplane.",)
    coco = read_source("coco", shared_data / "coco_small", 32, catalogue()["coco2017"])
    assert len(coco.class_names) == 80 and coco.class_names[:2] == ("airplane", "apple")
    assert coco.splits["train"].piece(np.arange(5))().shape == (5, 32, 32, 3)


def test_imported_pictures_of_several_labels_are_stored_whole(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    picture = Image.new("RGB", (40, 8), (255, 0, 0))
    picture.paste((0, 0, 255), (20, 0, 40, 8))
    picture.save(kit / "JPEGImages" / "000005.jpg", quality=95, subsampling=0)
    image = read_source("voc", kit, 8, None).splits["train"].piece(np.array([0]))()[0]
    assert (image[:, 0, 0] > 240).all() and (image[:, 0, 2] < 15).all()  # both ends, which a crop would lose
    assert (image[:, 7, 2] > 240).all() and image.shape == (8, 8, 3)


def test_what_was_imported_opens_again_and_knows_its_labels(tmp_path: Path, root: Path) -> None:
    quiet: Quiet = lambda line: None  # noqa: E731
    cached = import_dataset("mine", write_kit(tmp_path / "kit", KIT), "voc", root, quiet, 6)
    again = open_dataset("mine", root, quiet)
    for split in ("train", "test"):
        first, second = cached.splits[split].targets, again.splits[split].targets
        assert first is not None and second is not None and np.array_equal(first, second)
    path = again.folder / "train_targets.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    said: list[str] = []
    assert open_dataset("mine", root, said.append).splits["train"].targets is not None
    assert "train_targets.npy is not what was written" in said[0]


def test_imported_images_of_several_labels_train_by_the_recipe_for_them_in_every_protocol(
    tmp_path: Path, root: Path
) -> None:
    write_kit(tmp_path / "VOC2007", KIT)
    import_dataset("mine", tmp_path, "voc", root, lambda line: None, size=8)
    for protocol in ("static", "mlcil"):
        recipe, said = resolve_recipe(RunRequest(dataset="mine", protocol=protocol, data_root=str(root)))
        assert recipe.name == "quick-ml"
        assert said == ["mine has no recipe of its own in the catalogue: quick-ml is used."]


def test_broken_images_are_left_out_listed_and_stay_out(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    (kit / "classes.txt").write_text("car\nchair\nhorse\nperson\ntrain\n")
    (kit / "JPEGImages" / "000005.jpg").unlink()
    write_xml(kit / "Annotations" / "000007.xml", [])
    whole = (kit / "JPEGImages" / "000001.jpg").read_bytes()
    (kit / "JPEGImages" / "000001.jpg").write_bytes(whole[: len(whole) // 2])
    said: list[str] = []
    import_dataset("small", kit, "voc", root, said.append, 6, skip_broken=True)
    assert said[:2] == ["No training image shows car, chair.", "3 broken entries were left out:"]
    for part, line in zip(("000005", "000007.xml has no object", "000001.jpg"), said[2:5], strict=True):
        assert part in line
    assert any("3 broken entries left out" in line for line in inventory_lines(inventory(root)))
    record = read_record(root / "small")
    assert record is not None and record.broken_pictures == ("JPEGImages/000001.jpg",)
    assert len(record.left_out) == 3
    images = scenario_of(
        protocol="mlcil", n_tasks=2, data={"size": 4}
    ).images  # decoded again at another size
    assert images is not None
    assert (images.train.shape, images.test.shape) == ((2, 4, 4, 3), (1, 4, 4, 3))


def test_a_year_of_voc_is_fetched_with_torchvision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(place: str, year: str, image_set: str, download: bool) -> None:
        asked.append((year, image_set, download))
        lists = ("train", "val") if year == "2012" else (image_set,)
        kits = dict(zip(("train", "val", "trainval", "test"), (*KIT.values(), *KIT.values()), strict=True))
        write_kit(Path(place) / "VOCdevkit" / f"VOC{year}", {name: kits[name] for name in lists})

    monkeypatch.setattr("torchvision.datasets.VOCDetection", fetch)
    for name in ("voc2007", "voc2012"):
        cached = download_dataset(name, root, lambda line: None)
        assert [len(cached.splits[split].labels) for split in ("train", "test")] == [4, 2]
    assert asked == [("2007", "trainval", True), ("2007", "test", True), ("2012", "trainval", True)]


def test_a_truncated_picture_is_named_and_nothing_is_imported(tmp_path: Path, root: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    (kit / "JPEGImages" / "000009.jpg").write_bytes(buffer.getvalue()[:-400])
    with pytest.raises(
        Exception, match=r"000009.jpg cannot be read as a picture: .*truncated.*--skip-broken"
    ):
        import_dataset("small", kit, "voc", root, lambda line: None, 6)
    assert not list(root.glob("small/*/meta.json")) and not (root / "small" / "source.json").exists()
