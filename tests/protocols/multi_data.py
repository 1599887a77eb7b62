"""Small datasets of several labels an image, written in the forms that people import."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from small_data import save_picture

Objects = Sequence[tuple[str, bool]]  # class, difficult


def write_xml(path: Path, objects: Objects, filename: str = "") -> None:
    """An annotation as PASCAL VOC writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    things = "".join(
        f"<object><name>{name}</name><difficult>{int(hard)}</difficult><part><name>head</name></part></object>"
        for name, hard in objects
    )
    path.write_text(f"<annotation><filename>{filename}</filename>{things}</annotation>")


def write_kit(kit: Path, lists: Mapping[str, Mapping[str, Objects]]) -> Path:
    """A development kit: list -> image -> objects. Image i is a picture of its own colour."""
    for number, (name, images) in enumerate(lists.items()):
        path = kit / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in reversed(list(images))))
        for place, (image, objects) in enumerate(images.items()):
            save_picture(kit / "JPEGImages" / f"{image}.jpg", (number, place, 7))
            write_xml(kit / "Annotations" / f"{image}.xml", objects, f"{image}.jpg")
    return kit


KIT: dict[str, dict[str, Objects]] = {
    "trainval": {
        "000005": [("chair", False), ("chair", True)],
        "000007": [("car", False), ("person", True)],
        "000009": [("person", False), ("horse", False)],
        "000012": [("train", False)],
    },
    "test": {"000001": [("person", False)], "000002": [("chair", True), ("train", False)]},
}


def coco_content(images: Mapping[int, str], labels: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """COCO's format; labels: image id, category id, iscrowd. Category ids have gaps and are not in order of name."""
    return {
        "images": [{"id": one, "file_name": name} for one, name in images.items()],
        "annotations": [
            {
                "id": place,
                "image_id": image,
                "category_id": category,
                "iscrowd": crowd,
                "segmentation": [[1.0] * 6],
            }
            for place, (image, category, crowd) in enumerate(labels)
        ],
        "categories": [{"id": 90, "name": "apple"}, {"id": 1, "name": "zebra"}, {"id": 17, "name": "cat"}],
    }


TRAIN = coco_content(
    {9: "b.jpg", 4: "a.jpg", 30: "c.jpg"}, [(9, 90, 0), (9, 1, 0), (4, 17, 1), (4, 17, 0), (4, 1, 1)]
)
VAL = coco_content({2: "d.jpg", 1: "e.jpg"}, [(2, 17, 0)])


def write_coco(
    root: Path, train: Any = TRAIN, val: Any = VAL, folders: Sequence[str] = ("train2017", "val2017")
) -> Path:
    """COCO's layout, with all pictures that the images name."""
    for content, folder in zip((train, val), folders, strict=True):
        path = root / "annotations" / f"instances_{folder}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        (root / folder).mkdir(exist_ok=True)
        for place, image in enumerate(content["images"] if isinstance(content, dict) else ()):
            if isinstance(image, dict) and ".." not in image["file_name"]:
                save_picture(root / folder / image["file_name"], (place, 5, 5))
    return root


def write_list(folder: Path, lines: Sequence[str], pictures: Sequence[str] = ("0", "1", "2", "3")) -> Path:
    """A CSV of several labels an image and its pictures."""
    for name in pictures:
        save_picture(folder / "images" / f"{name}.png", (int(name), 0, 0))
    path = folder / "list.csv"
    path.write_text("\n".join(["path,labels,split", *lines, ""]))
    return path


LIST = (
    "images/2.png,cat;dog,train",
    "images/1.png,ant,train",
    "images/0.png,dog | ant,test",
    "images/3.png,,val",
)
