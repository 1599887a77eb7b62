"""VOC-MLT and COCO-MLT (Wu et al., ECCV 2020): long-tailed training lists for images of VOC2012 and COCO 2017.

The lists are for non-commercial research and are not shipped: a person puts the file of image ids beside the
images. Labels come from the annotations; those of VOC-MLT were made with difficult objects counted.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets import coco, voc
from imbcil.protocols.datasets.faults import Faults, check_inside, read_limited
from imbcil.protocols.datasets.multi_list import multi_source
from imbcil.protocols.datasets.source import Source

VOC_LISTS = ("img_id.txt", "longtail2012/img_id.txt", "VOCdevkit/longtail2012/img_id.txt", "voc_lt_train.txt")
COCO_LISTS = (
    "img_id.txt", "img_id.pkl", "longtail2017/img_id.txt", "longtail2017/img_id.pkl",
    "coco/longtail2017/img_id.txt", "coco/longtail2017/img_id.pkl", "coco_lt_train.txt",
)  # fmt: skip
# The published img_id.pkl of COCO is text in spite of its name; it is read as text and nothing else.


def read_voc_mlt(root: Path, size: int | None, faults: Faults) -> Source:
    """Training images of VOC2012 in the list's ids (sorted), test images of VOC2007."""
    listed = _list_file(root, VOC_LISTS)
    folders = [root / place for place in voc.places(root, "train", "2012")]
    folder = next((one for one in folders if (one / "Annotations").is_dir() and "2012" in one.name), None)
    if folder is None:
        raise BadInput(
            f"{root} has no VOCdevkit/VOC2012/Annotations, from which VOC-MLT takes its training images."
        )
    check_inside(root, folder / "Annotations")
    test = voc.find_kit(root, "test", "2007", "test")
    kit = voc.Kit(folder, listed)
    images = {
        "train": list(voc.annotated(root, kit, sorted(list_names(listed)), voc.CLASSES, faults)),
        "test": list(voc.annotated(root, test, voc.list_ids(test.list_path, faults), voc.CLASSES, faults)),
    }
    return multi_source(root, voc.listings_of(images, voc.CLASSES), voc.CLASSES, size, "voc-mlt", faults)


def read_coco_mlt(root: Path, size: int | None, faults: Faults) -> Source:
    """Training images of COCO train2017 in the list's ids, test images of val2017."""
    path = _list_file(root, COCO_LISTS)
    ids = list_names(path)
    listings, names = coco.read_listings(root, "2017", faults)
    by_id = {_number(name): row for row, name in enumerate(listings["train"].paths)}
    rows = []
    for name in ids:
        row = by_id.get(_number(name))
        if row is None:
            faults.add(f"{path} names the image {name}, and train2017 has no such image.")
        else:
            rows.append(row)
    keep = np.zeros(len(by_id), dtype=bool)
    keep[rows] = True
    listings["train"] = listings["train"].only(keep)
    return multi_source(root, listings, names, size, "coco-mlt", faults)


def _list_file(root: Path, names: Sequence[str]) -> Path:
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None:
        raise BadInput(
            f"{root} has none of {', '.join(names)}; the published list of training images belongs there "
            "(one image id a line)."
        )
    check_inside(root, found)
    return found


def list_names(path: Path) -> list[str]:
    """The image ids of a list: one a line, or paths with labels behind them, of which the file's name counts.

    Raises BadInput where a line holds something else or an id comes twice.
    """
    try:
        lines = read_limited(path, 1 << 24).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text in UTF-8; wanted is one image id a line.") from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        name = PurePosixPath(words[0]).stem if words else ""
        if words and (not name.replace("_", "").isalnum() or not name.isascii()):
            raise BadInput(f"{path}, line {number}: {words[0][:50]!r} is no image id.")
        if name in names:
            raise BadInput(f"{path}, line {number}: {name} is listed twice, first in line {names[name]}.")
        if name:
            names[name] = number
    return list(names)


def _number(name: str) -> str:
    """`train2017/000000000042.jpg`, `000000000042` and `42` are one image."""
    return PurePosixPath(name).stem.lstrip("0")
