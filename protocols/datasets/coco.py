"""MS-COCO in its own layout: one JSON file of annotations and one folder of images for each split.

Classes are numbered by sorted name, as every multi-label paper does, not by category id (which has gaps). A class
whose annotations in an image are all of crowds gets the code CROWD.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.faults import Faults, check_inside, checked_path, read_limited
from imbcil.protocols.datasets.multi_list import MultiListing, codes_of, multi_source
from imbcil.protocols.datasets.source import CROWD, POSITIVE, SPLITS, Source, clean_name

ROOTS = (".", "coco", "MSCOCO")  # folders that people keep the two below in; with a year, COCOYEAR too
_SPLIT_WORDS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}
Record = dict[str, Any]


@dataclass(frozen=True)
class Half:
    """Where one split lies."""

    json: Path
    images: Path  # folder below the root that file names start from


@dataclass(frozen=True)
class Annotations:
    """One JSON file, checked: class names, and of each image (by ascending id) its file name and class codes."""

    names: tuple[str, ...]  # sorted
    files: tuple[str, ...]
    codes: tuple[Mapping[str, int], ...]


def read_coco(root: Path, size: int | None, year: str | None, faults: Faults) -> Source:
    """The dataset at `root`. year None: data of one's own in COCO's format.

    Raises BadInput naming what is wanted or what a JSON file has wrong.
    """
    listings, names = read_listings(root, year, faults)
    return multi_source(root, listings, names, size, "coco", faults)


def read_listings(
    root: Path, year: str | None, faults: Faults
) -> tuple[dict[str, MultiListing], tuple[str, ...]]:
    """The images of both splits by ascending id, and the class names, sorted."""
    halves = find_halves(root, year)
    check_inside(root, *(half.json for half in halves.values()))
    parts = {split: read_annotations(halves[split].json, faults) for split in SPLITS}
    names = parts["train"].names
    strangers = sorted(set(parts["test"].names) - set(names))
    if strangers:
        raise BadInput(
            f"{halves['test'].json} has the category {strangers[0]!r}, and {halves['train'].json} has not."
        )
    number = {name: label for label, name in enumerate(names)}
    listings = {}
    for split, part in parts.items():
        folder = halves[split].images.relative_to(root)
        listings[split] = MultiListing(
            tuple((folder / name).as_posix() for name in part.files),
            codes_of(
                [{number[name]: code for name, code in mine.items()} for mine in part.codes], len(names)
            ),
        )
    return listings, names


def find_halves(root: Path, year: str | None) -> dict[str, Half]:
    """Annotations and images of each split in the places where people keep them."""
    if not root.is_dir():
        raise BadInput(f"{root} is no folder; wanted is one with annotations/ and folders of images inside.")
    return {split: _known_half(root, split, year) if year else _own_half(root, split) for split in SPLITS}


def _known_half(root: Path, split: str, year: str) -> Half:
    word = {"train": "train", "test": "val"}[split]
    name = f"instances_{word}{year}.json"
    for place in (*ROOTS, f"coco{year}", f"COCO{year}"):
        base = root / place
        found = next((path for path in (base / "annotations" / name, base / name) if path.is_file()), None)
        if found is not None:
            folders = [
                base / part for part in (f"{word}{year}", word, f"images/{word}{year}", f"images/{word}")
            ]
            images = next((path for path in folders if path.is_dir()), None)
            if images is None:
                raise BadInput(
                    f"{base} has no folder {word}{year}, {word} or images/{word}{year} with the images."
                )
            return Half(found, images)
    raise BadInput(
        f"{root} has no annotations/{name}; wanted is a folder with annotations/{name} and {word}{year}/ inside."
    )


def _own_half(root: Path, split: str) -> Half:
    """The one JSON file whose name says that it is the split's, and the folder of images that fits it."""
    words = _SPLIT_WORDS[split]
    files = [
        path
        for depth in ("annotations/*.json", "*.json", "*/_annotations.coco.json")
        for path in root.glob(depth)
    ]
    for word in words:
        pattern = re.compile(rf"(?:.*_)?{word}(\d*)")
        mine = sorted(
            path for path in files
            if pattern.fullmatch(path.parent.name if path.stem == "_annotations.coco" else path.stem)
            and not path.stem.startswith(("captions", "person_keypoints", "stuff", "panoptic", "image_info"))
        )  # fmt: skip
        if len(mine) > 1:
            raise BadInput(
                f"{root} has two lists of {word} images, {mine[0].name} and {mine[1].name}; keep one."
            )
        if mine:
            return Half(mine[0], _image_folder(root, mine[0], word))
    raise BadInput(
        f"{root} has no annotations/instances_{words[0]}.json (or a name that ends in {' or '.join(words)}); "
        "wanted are one JSON file for training and one for testing, beside folders of their images."
    )


def _image_folder(root: Path, annotations: Path, word: str) -> Path:
    if annotations.parent.name != "annotations" and annotations.parent != root:
        return annotations.parent
    match = re.search(rf"{word}\d*$", annotations.stem)
    names = [match[0] if match else word, word]
    folders = [root / place for name in names for place in (name, f"images/{name}")]
    return next((path for path in (*folders, root / "images") if path.is_dir()), root)


def read_annotations(path: Path, faults: Faults) -> Annotations:
    """A JSON file of instances, checked. Raises BadInput for a wrong shape; unusable images go to `faults`."""
    content = _load(path)
    categories = _categories(path, content)
    files: dict[int, str] = {}
    left_out: set[int] = set()
    for place, image in _records(path, content, "images", {"id": int, "file_name": str}):
        name = checked_path(image["file_name"])
        if image["id"] in files:
            faults.add(f"{path}, {place}: the image id {image['id']} is given twice.")
        elif name is None:
            faults.add(
                f"{path}, {place}: the image {image['file_name']!r} lies outside the folder of the images."
            )
        else:
            files[image["id"]] = name
            continue
        left_out.add(image["id"])
    codes = _codes(path, content, files, left_out, categories, faults)
    ids = sorted(files)
    return Annotations(
        tuple(sorted(categories.values())), tuple(files[one] for one in ids), tuple(codes[one] for one in ids)
    )


def _codes(
    path: Path,
    content: Record,
    files: dict[int, str],
    left_out: set[int],
    categories: Mapping[int, str],
    faults: Faults,
) -> dict[int, dict[str, int]]:
    """Class -> code of each image; an image with an unknown category is removed from `files` as a fault."""
    codes: dict[int, dict[str, int]] = {one: {} for one in files}
    seen: set[int] = set()
    for place, annotation in _records(path, content, "annotations", {"image_id": int, "category_id": int}):
        image, category = annotation["image_id"], annotation["category_id"]
        if "id" in annotation and isinstance(annotation["id"], int):
            if annotation["id"] in seen:
                faults.add(f"{path}, {place}: the annotation id {annotation['id']} is given twice.")
                continue
            seen.add(annotation["id"])
        if image not in codes:
            if image not in left_out:
                faults.add(f"{path}, {place}: there is no image with the id {image}.")
        elif category not in categories:
            faults.add(f"{path}, {place}: there is no category with the id {category}.")
            files.pop(image, None)
        else:
            code = CROWD if annotation.get("iscrowd") in (1, True) else POSITIVE
            name = categories[category]
            codes[image][name] = min(code, codes[image].get(name, code))
    return codes


def _categories(path: Path, content: Record) -> dict[int, str]:
    """Category id -> name; gaps in the ids are fine."""
    categories: dict[int, str] = {}
    for place, category in _records(path, content, "categories", {"id": int, "name": str}):
        name = clean_name(category["name"])
        if category["id"] in categories or name in categories.values() or not name:
            raise BadInput(
                f"{path}, {place}: each category needs an id and a name of its own, not {name!r} again."
            )
        categories[category["id"]] = name
    if not categories:
        raise BadInput(f"{path} has no categories.")
    return categories


def _records(
    path: Path, content: Record, key: str, wanted: Mapping[str, type]
) -> Iterator[tuple[str, Record]]:
    """The objects of one list with their place, `images[3]`. Raises BadInput for a list of another shape."""
    records = content.get(key)
    if not isinstance(records, list):
        raise BadInput(
            f"{path} has no list called {key!r}; wanted is COCO's format: images, annotations, categories."
        )
    for number, record in enumerate(records):
        place = f"{key}[{number}]"
        if not isinstance(record, dict):
            raise BadInput(f"{path}, {place} is no object.")
        for name, kind in wanted.items():
            value = record.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                said = {int: "a whole number", str: "text"}[kind]
                raise BadInput(f"{path}, {place}: {name} = {str(value)[:50]!r}; wanted is {said}.")
        yield place, record


def _without_outlines(record: Record) -> Record:
    """Outlines fill nine tenths of a file and are dropped as soon as they are read."""
    record.pop("segmentation", None)
    return record


def _load(path: Path) -> Record:
    try:
        content = json.loads(read_limited(path), object_hook=_without_outlines)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise BadInput(
            f"{path} holds no JSON object; wanted is COCO's format: images, annotations, categories."
        )
    return content
