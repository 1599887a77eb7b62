"""glyphs20-ml: one to four objects of twenty classes in an image, long-tailed, for multi-label learning.

Frequencies fall exponentially from class to class, and classes come in company as PASCAL VOC's do: one class
(VOC's person) is the largest and joins all others, the rest keep to groups (VOC's furniture, vehicles,
animals). Three images of five show one class, as in VOC. Test images are drawn from a milder tail, so that
the rarest class has enough of them to be measured. Bits are the same everywhere, as those of glyphs100.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.randomness import key_seed
from imbcil.protocols.catalogue import DatasetEntry
from imbcil.protocols.datasets.outlines import fonts_fingerprint
from imbcil.protocols.datasets.painting import (
    CHARACTERS,
    Floats,
    between,
    blended_ground,
    grainy,
    letter_cover,
    light_colours,
    paint,
)
from imbcil.protocols.datasets.source import POSITIVE, SPLITS, Images, Rows, Source, SplitSource

VERSION = 1  # raise it when labels or rendering change
CLASSES = tuple(sorted("mX~ΣLЖðTrΩG€FRΦ4ß7ЋΨ"))  # lexicographic, the order of arrival in this field
# Rank by label, 0 the most frequent: as in VOC, neither head nor tail sits in one phase.
RANKS = (11, 6, 15, 3, 9, 18, 1, 13, 7, 16, 4, 10, 19, 2, 0, 14, 5, 17, 8, 12)
GROUPS = (0, 0, 1, 0, 2, 0, 0, 1, 2, 1, 2, 1, 1, 0, 3, 2, 1, 2, 0, 2)  # by label; 3 keeps company with all
# How strongly a class draws one of another group, of its own, and of the group that joins all.
ALONE, IN_COMPANY, JOINS_ALL = 1, 8, 12
RHO = {"train": 50.0, "test": 10.0}  # most over least frequent class, first objects
OBJECTS = (0.62, 0.90, 0.98, 1.0)  # an image has at most 1, 2, 3, 4 objects with these probabilities
_BLOCK = 100  # images drawn from one generator
_DISTRACTORS = 2


def multi_glyphs_fingerprint(entry: DatasetEntry) -> str:
    """Of everything that decides labels and pixels."""
    rule = f"{CLASSES}:{RANKS}:{GROUPS}:{RHO}:{OBJECTS}:{ALONE}:{IN_COMPANY}:{JOINS_ALL}"
    counts = f"{entry.train_images}:{entry.test_images}:{entry.size}"
    return f"glyphs-ml:{VERSION}:{counts}:{rule}:{CHARACTERS}:{fonts_fingerprint()}"


def multi_glyphs_source(entry: DatasetEntry) -> Source:
    """The dataset; image i is the same whichever others are rendered with it."""
    counts = {"train": entry.train_images, "test": entry.test_images}
    splits = {}
    for split in SPLITS:
        objects = draw_objects(split, counts[split])
        splits[split] = SplitSource(
            np.full(counts[split], -1, np.int64), _Pieces(split, objects, entry.size), label_matrix(objects)
        )
    return Source(multi_glyphs_fingerprint(entry), CLASSES, entry.size, splits)


def draw_objects(split: str, count: int) -> NDArray[np.int64]:
    """Labels of the objects of each image [count, 4], -1 where there is none; two may be of one class."""
    draw = np.random.RandomState(key_seed("glyphs-ml", VERSION, split) % 2**32)
    frequency, company = _frequencies(RHO[split]), _company()
    objects = np.full((count, len(OBJECTS)), -1, np.int64)
    for row in range(count):
        first = _pick(draw, frequency)
        objects[row, 0] = first
        more = int(np.searchsorted(OBJECTS, draw.random_sample(), side="right"))
        for place in range(1, more + 1):
            objects[row, place] = _pick(draw, frequency * company[first])
    return objects


def label_matrix(objects: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes [N, 20]: POSITIVE where the image has an object of the class."""
    targets = np.zeros((len(objects), len(CLASSES)), np.uint8)
    for place in range(objects.shape[1]):
        there = np.flatnonzero(objects[:, place] >= 0)
        targets[there, objects[there, place]] = POSITIVE
    return targets


def _frequencies(rho: float) -> NDArray[np.int64]:
    """Whole-number weights of the classes as first objects, so that no power function decides a draw."""
    last = len(CLASSES) - 1
    return np.array([round(10_000 * rho ** (-rank / last)) for rank in RANKS], np.int64)


def _company() -> NDArray[np.int64]:
    """How much more often a class [column] is drawn beside a first object [row]."""
    group = np.array(GROUPS)
    same = (group[:, None] == group[None, :]) & ~np.eye(len(group), dtype=bool)
    common = (group[:, None] == 3) | (group[None, :] == 3)
    return np.where(common, JOINS_ALL, np.where(same, IN_COMPANY, ALONE)).astype(np.int64)


def _pick(draw: np.random.RandomState, weights: NDArray[np.int64]) -> int:
    borders = np.cumsum(weights)
    return int(np.searchsorted(borders, draw.randint(0, int(borders[-1])), side="right"))


@dataclass(frozen=True)
class _Pieces:
    """Renders the blocks that rows belong to, and cuts the rows out."""

    split: str
    objects: NDArray[np.int64]
    size: int

    def __call__(self, rows: Rows) -> partial[Images]:
        return partial(self._render, rows)

    def _render(self, rows: Rows) -> Images:
        images = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for block in np.unique(rows // _BLOCK):
            mine = rows // _BLOCK == block
            objects = self.objects[block * _BLOCK : (block + 1) * _BLOCK]
            images[mine] = render_block(self.split, int(block), objects, self.size)[rows[mine] % _BLOCK]
        return images


def render_block(split: str, block: int, objects: NDArray[np.int64], size: int) -> Images:
    """The images [n, size, size, 3] of one block. Faint letters of other classes lie behind the objects."""
    draw = np.random.RandomState(key_seed("glyphs-ml", VERSION, split, block) % 2**32)
    count = len(objects)
    canvas = blended_ground(draw, count, size)
    strangers = np.array([place for place, sign in enumerate(CHARACTERS) if sign not in CLASSES])
    for _ in range(_DISTRACTORS):
        other = strangers[draw.randint(0, len(strangers), count)]
        cover = letter_cover(
            draw, other, draw.random_sample((count, 2)) * size, between(draw, count, 0.2, 0.5) * size, size
        )
        strength = between(draw, count, 0.2, 0.5)[:, None, None]
        canvas = paint(canvas, cover * strength, draw.random_sample((count, 3)))
    places = _places(draw, count, size)
    signs = np.array([CHARACTERS.index(sign) for sign in CLASSES])
    for number in range(objects.shape[1]):
        there = objects[:, number] >= 0
        em = between(draw, count, 0.5, 0.72) * size
        cover = letter_cover(draw, signs[objects[:, number]], places[:, number], em, size, there)
        canvas = paint(canvas, cover, light_colours(draw, count), there)
    return grainy(draw, canvas)


def _places(draw: np.random.RandomState, count: int, size: int) -> Floats:
    """Centres [count, 4, 2], one in each quarter of the image, in random order."""
    quarters = np.array([[0.27, 0.27], [0.73, 0.27], [0.27, 0.73], [0.73, 0.73]])
    order = np.argsort(draw.random_sample((count, 4)), axis=1)
    jitter = (draw.random_sample((count, 4, 2)) - 0.5) * 0.14
    centres: Floats = (quarters[order] + jitter) * size
    return centres
