"""PASCAL VOC in the layout of its development kit: image lists, one XML file an image, JPEG files.

Labels come from the objects of the XML files, never from the lists of single classes (the class `train` has a
`train_train.txt`). A class whose objects in an image are all marked difficult gets the code DIFFICULT.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets.faults import Faults, check_inside, checked_path, file_fault, read_limited
from imbcil.protocols.datasets.multi_list import MultiListing, codes_of, multi_source
from imbcil.protocols.datasets.source import DIFFICULT, POSITIVE, SPLITS, Source

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CLASS_FILE = "classes.txt"  # of a kit of one's own: one class a line
LARGEST_XML = 16 << 20  # bytes
SUFFIXES = (".jpg", ".jpeg", ".png")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Kit:
    """Where one split lies: a folder below the root with JPEGImages and Annotations, and the list of its images."""

    folder: Path
    list_path: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> "Kit":
        """The kit in `folder` with the list called `name`."""
        return cls(folder, folder / "ImageSets" / "Main" / f"{name}.txt")


@dataclass(frozen=True)
class Annotated:
    """One image: its file below the root, and the code of each class that its annotation names."""

    path: str
    codes: Mapping[str, int]


def read_voc(root: Path, size: int | None, year: str | None, lists: Sequence[str], faults: Faults) -> Source:
    """The dataset at `root`. year None: a kit of one's own, found by its folders.

    lists: names of the training and the test list (`trainval`, `test`); empty: `trainval` and `test` where the kit
    has them, else `train` and `val`. Raises BadInput naming what is wanted.
    """
    kits = find_kits(root, year, lists)
    known = CLASSES if year else _own_classes(kits["train"].folder)
    images = {
        split: list(annotated(root, kit, list_ids(kit.list_path, faults), known, faults))
        for split, kit in kits.items()
    }
    names = known or _found_classes(images, faults)
    return multi_source(root, listings_of(images, names), names, size, "voc", faults)


def listings_of(images: Mapping[str, Sequence[Annotated]], names: Sequence[str]) -> dict[str, MultiListing]:
    """Annotated images of each split with their classes as labels."""
    number = {name: label for label, name in enumerate(names)}
    return {
        split: MultiListing(
            tuple(image.path for image in images[split]),
            codes_of([{number[name]: code for name, code in image.codes.items()} for image in images[split]], len(names)),
        )
        for split in SPLITS
    }  # fmt: skip


def find_kits(root: Path, year: str | None, lists: Sequence[str]) -> dict[str, Kit]:
    """The kit of each split: the first of the usual places that has the split's list."""
    if not root.is_dir():
        raise BadInput(f"{root} is no folder; wanted is one with VOCdevkit inside.")
    wanted = dict(zip(SPLITS, lists, strict=True)) if lists else _own_lists(root, year)
    return {split: find_kit(root, split, year, name) for split, name in wanted.items()}


def find_kit(root: Path, split: str, year: str | None, name: str) -> Kit:
    """The first of the usual places that has the list `name`. Raises BadInput where none has."""
    found = [Kit.of(root / place, name) for place in places(root, split, year)]
    kit = next((one for one in found if one.list_path.is_file() and _is_year(one.folder, year)), None)
    if kit is None:
        folder = f"VOC{year}" if year else "VOC20NN"
        raise BadInput(
            f"{root} has no ImageSets/Main/{name}.txt, neither there nor in {folder}, VOCdevkit/{folder} or "
            f"{folder}/VOCdevkit/{folder}; wanted is the development kit of PASCAL VOC."
        )
    check_inside(root, kit.list_path, kit.folder / "Annotations")
    return kit


def _is_year(folder: Path, year: str | None) -> bool:
    """Whether the folder's name does not say that it is of another year."""
    match = re.fullmatch(r"voc(\d{4})", folder.resolve().name.lower())
    return year is None or match is None or match[1] == year


def places(root: Path, split: str, year: str | None) -> Iterator[str]:
    """Folders below `root` in which people keep a kit, the likeliest first; for an unknown year, those there are."""
    if year is None:
        found = sorted(
            {
                path.parents[2]
                for depth in range(4)
                for path in root.glob("*/" * depth + "ImageSets/Main/*.txt")
            }
        )
        if len(found) > 1:
            raise BadInput(
                f"{root} has several kits, {found[0]} and {found[1]} among them; give the folder of one."
            )
        yield from (path.relative_to(root).as_posix() for path in found)
        return
    part = {"train": "trainval", "test": "test"}[split]
    for name in (f"VOC{year}", f"voc{year}"):
        yield from (
            ".",
            name,
            f"VOCdevkit/{name}",
            f"{name}/VOCdevkit/{name}",
            f"VOC{part}{year}/VOCdevkit/{name}",
        )
        for own in (f"{name}_{split}", f"{name}_{part}"):
            yield from (own, f"{own}/VOCdevkit/{name}")


def _own_lists(root: Path, year: str | None) -> dict[str, str]:
    kits = [root / place for place in places(root, "train", year)]
    both = {"train": "trainval", "test": "test"}
    if any(all(Kit.of(kit, name).list_path.is_file() for name in both.values()) for kit in kits):
        return both
    return {"train": "train", "test": "val"}


def _own_classes(kit: Path) -> tuple[str, ...]:
    """The classes that a kit of one's own declares in classes.txt, sorted; empty where it declares none."""
    path = kit / CLASS_FILE
    if not path.exists():
        return ()
    try:
        lines = read_limited(path, 1 << 20).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text in UTF-8.") from None
    names = sorted(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise BadInput(f"{path}: write each class once, one a line.")
    return tuple(names)


def _found_classes(images: Mapping[str, list[Annotated]], faults: Faults) -> tuple[str, ...]:
    """Sorted names of the training objects; test images with another class are at fault."""
    names = sorted({name for image in images["train"] for name in image.codes})
    for image in list(images["test"]):
        stranger = next((name for name in image.codes if name not in names), None)
        if stranger is not None:
            faults.add(f"{image.path}: no training image has its class {stranger!r}.")
            images["test"].remove(image)
    return tuple(names)


def list_ids(path: Path, faults: Faults) -> list[str]:
    """The image names in a list, sorted. Repeated ones and those that are no plain name are faults."""
    ids: set[str] = set()
    try:
        lines = read_limited(path, LARGEST_XML).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text in UTF-8; wanted is one image name a line.") from None
    for number, line in enumerate(lines, start=1):
        name = line.split()[0] if line.split() else ""
        if name and _ID.fullmatch(name) is None:
            faults.add(f"{path}, line {number}: {name!r} is no image name; a path may not leave its folder.")
        elif name in ids:
            faults.add(f"{path}, line {number}: {name} is listed twice.")
        elif name:
            ids.add(name)
    return sorted(ids)


def annotated(
    root: Path, kit: Kit, ids: Sequence[str], known: Sequence[str], faults: Faults
) -> Iterator[Annotated]:
    """The images `ids` of a kit with their labels, in that order; those at fault are left out."""
    for name in ids:
        path = _picture(root, kit, name)
        label = (kit.folder / "Annotations" / f"{name}.xml").relative_to(root).as_posix()
        fault = file_fault(root, path) or file_fault(root, label)
        fault = f"{kit.list_path} names {name}, and {fault}" if fault else None
        codes: Mapping[str, int] = {}
        if fault is None:
            try:
                codes = read_objects(root / label, known)
            except BadInput as error:
                fault = str(error)
        if fault is None:
            yield Annotated(path, codes)
        else:
            faults.add(fault)


def _picture(root: Path, kit: Kit, name: str) -> str:
    folder = (kit.folder / "JPEGImages").relative_to(root).as_posix()
    paths = [f"{folder}/{name}{suffix}" for suffix in SUFFIXES]
    return next(
        (path for path in paths[1:] if not (root / paths[0]).exists() and (root / path).exists()), paths[0]
    )


def read_objects(path: Path, known: Sequence[str]) -> dict[str, int]:
    """Class -> code of the objects in one annotation. known: the classes there may be; empty: any.

    Raises BadInput for a file that is no annotation, has no object, an unknown class, or entities to expand.
    """
    annotation = _parse(path)
    filename = (annotation.findtext("filename") or "").strip()
    if filename and checked_path(filename) is None:
        raise BadInput(f"{path}: its image {filename!r} lies outside the folder of the images.")
    codes: dict[str, int] = {}
    for thing in annotation.findall("object"):
        name = (thing.findtext("name") or "").strip()
        if not name or (known and name not in known):
            raise BadInput(f"{path}: there is no class called {name!r}.")
        code = DIFFICULT if (thing.findtext("difficult") or "0").strip() == "1" else POSITIVE
        codes[name] = min(code, codes.get(name, code))
    if not codes:
        raise BadInput(f"{path} has no object.")
    return codes


def _parse(path: Path) -> Any:
    """The root element of an annotation."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    content = read_limited(path, LARGEST_XML)
    try:
        element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise BadInput(f"{path} declares a document type or entities, which no annotation needs.") from None
    except (ParseError, ValueError, LookupError) as error:
        raise BadInput(f"{path} is no XML: {error}.") from None
    if element.tag != "annotation":
        raise BadInput(f"{path} is no annotation of PASCAL VOC: its first element is <{element.tag[:50]}>.")
    return element
