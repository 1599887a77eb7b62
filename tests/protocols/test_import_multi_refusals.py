"""Lists of several labels that cannot be used: one sentence that names the file and the place, and nothing cached."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multi_data import KIT, LIST, TRAIN, write_coco, write_kit, write_list, write_xml
from small_data import save_picture

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.faults import LARGEST_FILE, Faults
from imbcil.protocols.datasets.readers import read_source
from imbcil.protocols.datasets.voc import LARGEST_XML
from imbcil.protocols.library import import_dataset

LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><annotation><object><name>&c;</name></object></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><object><name>&b;</name></object></annotation>'
Change = Callable[[Path], Any]


def listed(name: str) -> Change:
    return lambda kit: (kit / "ImageSets" / "Main" / "trainval.txt").write_text(name)


def annotation(text: str) -> Change:
    return lambda kit: (kit / "Annotations" / "000005.xml").write_text(text)


VOC_FAULTS: list[tuple[Change, str]] = [
    (
        lambda kit: (kit / "JPEGImages" / "000005.jpg").unlink(),
        r"trainval.txt names 000005, and .*000005.jpg is missing",
    ),
    (
        lambda kit: (kit / "Annotations" / "000005.xml").unlink(),
        r"trainval.txt names 000005, and .*000005.xml is missing",
    ),
    (lambda kit: write_xml(kit / "Annotations" / "000005.xml", []), r"000005.xml has no object"),
    (
        lambda kit: write_xml(kit / "Annotations" / "000005.xml", [("chiar", False)]),
        r"no class called 'chiar'",
    ),
    (
        lambda kit: write_xml(kit / "Annotations" / "000005.xml", [("car", False)], "../../x.jpg"),
        r"'../../x.jpg' lies outside",
    ),
    (annotation(LAUGHS), r"000005.xml declares a document type or entities"),
    (annotation(OUTSIDE), r"000005.xml declares a document type or entities"),
    (annotation("<annotation><object>"), r"000005.xml is no XML"),
    (annotation("<html></html>"), r"000005.xml is no annotation of PASCAL VOC"),
    (annotation(""), r"000005.xml is no XML"),
    (listed("000005\n000005\n000007\n"), r"trainval.txt, line 2: 000005 is listed twice"),
    (listed("../../000005\n000007\n"), r"trainval.txt, line 1: '../../000005' is no image name"),
    (listed("/etc/passwd\n000007\n"), r"trainval.txt, line 1: '/etc/passwd' is no image name"),
    (listed("000001\n000007\n"), r"000001.jpg is listed twice"),  # for training and for testing
]


@pytest.mark.parametrize(("change", "part"), VOC_FAULTS, ids=range(len(VOC_FAULTS)))
def test_a_fault_in_a_kit_is_named_and_can_be_skipped(change: Change, part: str, tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    (kit / "classes.txt").write_text("\n".join(["car", "chair", "horse", "person", "train"]))
    change(kit)
    with pytest.raises(BadInput, match=rf"{part}.*--skip-broken") as refused:
        read_source("voc", kit, 6, None)
    assert "\n" not in str(refused.value)
    faults = Faults(skip=True)
    source = read_source("voc", kit, 6, None, faults)
    assert len(faults.sentences) == 1
    assert len(source.splits["train"].labels) >= 1 and len(source.splits["test"].labels) >= 1


def with_images(*images: Any) -> dict[str, Any]:
    return {**TRAIN, "images": list(images)}


def with_label(**label: Any) -> dict[str, Any]:
    return {
        **TRAIN,
        "annotations": [*TRAIN["annotations"], {"id": 77, "image_id": 9, "category_id": 1, **label}],
    }


COCO_FAULTS: list[tuple[Any, str]] = [
    (
        with_images(*TRAIN["images"], {"id": 9, "file_name": "x.jpg"}),
        r"images\[3\]: the image id 9 is given twice",
    ),
    (with_images(*TRAIN["images"], {"id": 5, "file_name": "../../x.jpg"}), r"'../../x.jpg' lies outside"),
    (with_images(*TRAIN["images"], {"id": 5, "file_name": "/etc/x.jpg"}), r"'/etc/x.jpg' lies outside"),
    (with_label(category_id=3), r"annotations\[5\]: there is no category with the id 3"),
    (with_label(image_id=1234), r"annotations\[5\]: there is no image with the id 1234"),
    (with_label(id=0), r"annotations\[5\]: the annotation id 0 is given twice"),
]


@pytest.mark.parametrize(("train", "part"), COCO_FAULTS, ids=range(len(COCO_FAULTS)))
def test_a_fault_in_coco_annotations_is_named_and_can_be_skipped(
    train: Any, part: str, tmp_path: Path
) -> None:
    root = write_coco(tmp_path / "mine", train)
    with pytest.raises(BadInput, match=rf"instances_train2017.json, {part}|{part}.*--skip-broken"):
        read_source("coco", root, 6, None)
    faults = Faults(skip=True)
    assert len(read_source("coco", root, 6, None, faults).splits["train"].labels) >= 1
    assert len(faults.sentences) == 1


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no JSON object"),
        ("[" * 100_000, "is no JSON"),
        ('{"images": []}', "has no list called 'categories'"),
        (json.dumps({**TRAIN, "images": {"a": 1}}), "has no list called 'images'"),
        (json.dumps({**TRAIN, "images": [7]}), r"images\[0\] is no object"),
        (
            json.dumps({**TRAIN, "images": [{"id": "x", "file_name": "a.jpg"}]}),
            r"images\[0\]: id = 'x'; wanted is a whole",
        ),
        (json.dumps({**TRAIN, "images": [{"id": 1}]}), r"images\[0\]: file_name = 'None'; wanted is text"),
        (
            json.dumps({**TRAIN, "annotations": [{"image_id": True, "category_id": 1}]}),
            r"annotations\[0\]: image_id",
        ),
        (json.dumps({**TRAIN, "categories": []}), "has no categories"),
        (
            json.dumps({**TRAIN, "categories": [*TRAIN["categories"], {"id": 2, "name": "cat"}]}),
            "not 'cat' again",
        ),
    ],
)
def test_json_of_the_wrong_shape_is_refused_even_when_broken_images_are_skipped(
    content: str, part: str, tmp_path: Path
) -> None:
    root = write_coco(tmp_path / "mine")
    (root / "annotations" / "instances_train2017.json").write_text(content)
    for skip in (False, True):
        with pytest.raises(BadInput, match=rf"instances_train2017.json.*{part}"):
            read_source("coco", root, 6, None, Faults(skip))


def test_files_beyond_two_gibibytes_are_refused_unread(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "mine")
    path = root / "annotations" / "instances_train2017.json"
    os.truncate(path, LARGEST_FILE + 1)  # sparse: takes no space
    with pytest.raises(
        BadInput, match=r"instances_train2017.json has 2.00 GiB; a file of its kind beyond 2 GiB is not read"
    ):
        read_source("coco", root, 6, None)
    kit = write_kit(tmp_path / "kit", KIT)
    (kit / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n000007\n")
    os.truncate(kit / "Annotations" / "000007.xml", LARGEST_FILE + 1)
    os.truncate(kit / "JPEGImages" / "000005.jpg", LARGEST_FILE + 1)
    with pytest.raises(BadInput, match=r"000005.jpg has 2.00 GiB; a file of its kind beyond 2 GiB"):
        read_source("voc", kit, 6, None)
    (kit / "ImageSets" / "Main" / "trainval.txt").write_text("000007\n")
    with pytest.raises(BadInput, match=r"000007.xml has 2.00 GiB; a file of its kind beyond \d+ [GM]iB"):
        read_source("voc", kit, 6, None)
    os.truncate(kit / "Annotations" / "000007.xml", LARGEST_XML + 1)
    with pytest.raises(BadInput, match=r"000007.xml has 0.02 GiB; a file of its kind beyond 16 MiB"):
        read_source("voc", kit, 6, None)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ((*LIST, "images/9.png,ant,train"), r"images/9.png is missing"),
        ((*LIST, "../9.png,ant,train"), r"line 6: the path '../9.png' leaves the folder"),
        ((*LIST, ",ant,train"), r"line 6: the path may not be empty"),
        ((*LIST, "images/9.png,,train"), r"line 6: the training image images/9.png has no label"),
        ((*LIST, "images/1.png,ant,train"), r"images/1.png is listed twice"),
        ((*LIST[:3], "images/3.png,bee,test"), r"line 5: no training image has the class 'bee'"),
    ],
)
def test_a_fault_in_a_csv_is_named_by_its_line_and_can_be_skipped(
    lines: list[str], part: str, tmp_path: Path
) -> None:
    path = write_list(tmp_path, lines)
    with pytest.raises(BadInput, match=rf"{part}.*--skip-broken"):
        read_source("csv", path, 6, None)
    faults = Faults(skip=True)
    read_source("csv", path, 6, None, faults)
    assert len(faults.sentences) == 1


def test_a_csv_with_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 6: split = 'dev'; write train or test"):
        read_source("csv", write_list(tmp_path, (*LIST, "images/1.png,ant,dev")), 6, None, Faults(True))


def test_links_that_lead_out_of_the_root_are_refused(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    save_picture(tmp_path / "outside.jpg")
    picture = kit / "JPEGImages" / "000005.jpg"
    picture.unlink()
    picture.symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(BadInput, match=r"000005.jpg is a link that leads out of"):
        read_source("voc", kit, 6, None)
    picture.unlink()
    (kit / "JPEGImages").rename(tmp_path / "elsewhere")
    (kit / "JPEGImages").symlink_to(tmp_path / "elsewhere")
    save_picture(tmp_path / "elsewhere" / "000005.jpg")
    with pytest.raises(BadInput, match=r"JPEGImages is a link that leads out of"):
        read_source("voc", kit, 6, None, Faults(True))


def test_annotations_and_lists_that_lie_outside_the_root_are_refused(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    for place in ("Annotations/000005.xml", "ImageSets/Main/trainval.txt"):
        inside, outside = kit / place, tmp_path / Path(place).name
        inside.rename(outside)
        inside.symlink_to(outside)
        with pytest.raises(BadInput, match=rf"{Path(place).name} is a link that leads out of"):
            read_source("voc", kit, 6, None)
        inside.unlink()
        outside.rename(inside)
    assert read_source("voc", kit, 6, None).class_names
    root = write_coco(tmp_path / "mine")
    (root / "annotations").rename(tmp_path / "annotations")
    (root / "annotations").symlink_to(tmp_path / "annotations")
    with pytest.raises(BadInput, match=r"instances_train2017.json is a link that leads out of"):
        read_source("coco", root, 6, None)


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", KIT)
    (kit / "JPEGImages" / "000005.jpg").unlink()
    os.mkfifo(kit / "JPEGImages" / "000005.jpg")
    with pytest.raises(BadInput, match=r"000005.jpg is no ordinary file"):
        read_source("voc", kit, 6, None)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("voc", "has no ImageSets/Main"),
        ("coco", "has no annotations/instances_train.json"),
        ("voc-mlt", "has none of img_id.txt"),
    ],
)
def test_a_folder_without_the_wanted_files_says_which_are_wanted(
    kind: Any, part: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=part):
        read_source(kind, tmp_path, 6, None)


def test_several_kits_below_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    for year in ("2007", "2012"):
        write_kit(tmp_path / "VOCdevkit" / f"VOC{year}", KIT)
    with pytest.raises(BadInput, match=r"has several kits, .*VOC2007 and .*VOC2012 among them"):
        read_source("voc", tmp_path, 6, None)


def test_a_test_category_that_training_lacks_is_refused(tmp_path: Path) -> None:
    val = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "yak"}]}
    with pytest.raises(BadInput, match=r"instances_val2017.json has the category 'yak'"):
        read_source("coco", write_coco(tmp_path, val=val), 6, None)


def test_skipping_is_refused_for_images_of_one_label(tmp_path: Path, root: Path) -> None:
    save_picture(tmp_path / "tree" / "train" / "a" / "0.png")
    save_picture(tmp_path / "tree" / "test" / "a" / "0.png")
    with pytest.raises(BadInput, match="--skip-broken is for images of several labels"):
        import_dataset("mine", tmp_path / "tree", "folder", root, lambda line: None, skip_broken=True)


def test_another_number_of_classes_than_the_catalogue_has_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(BadInput, match="has 3 classes and coco2017 has 80"):
        import_dataset("coco2017", write_coco(tmp_path / "mine"), "auto", root, lambda line: None)
    assert not list(root.glob("coco2017/*/meta.json"))
