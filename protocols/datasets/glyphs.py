"""glyphs100: a hundred letters and signs in sixteen fonts, rendered here, on cluttered coloured grounds.

Every random number comes from numpy's frozen legacy generator, keyed by split and class; every pixel from
IEEE basic operations on single elements. The images are the same bits on every machine that has the same
font files, and a class is the same whichever others are rendered with it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

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
from imbcil.protocols.datasets.source import SPLITS, Images, Rows, Source, SplitSource

VERSION = 5  # raise it when rendering changes
_DISTRACTORS = 2


def glyphs_fingerprint(entry: DatasetEntry) -> str:
    """Of everything that decides the pixels."""
    counts = f"{entry.classes}:{entry.train_per_class}:{entry.test_per_class}:{entry.size}"
    return f"glyphs:{VERSION}:{counts}:{CHARACTERS}:{fonts_fingerprint()}"


def glyphs_source(entry: DatasetEntry) -> Source:
    """The dataset in label order: row = label * images per class + number."""
    counts = {"train": entry.train_per_class, "test": entry.test_per_class}
    labels = np.arange(entry.classes, dtype=np.int64)
    splits = {
        split: SplitSource(np.repeat(labels, counts[split]), _Pieces(split, counts[split], entry.size))
        for split in SPLITS
    }
    return Source(glyphs_fingerprint(entry), tuple(CHARACTERS[: entry.classes]), entry.size, splits)


@dataclass(frozen=True)
class _Pieces:
    """Renders the classes that rows belong to, and cuts the rows out."""

    split: str
    per_class: int
    size: int

    def __call__(self, rows: Rows) -> partial[Images]:
        return partial(self._render, rows)

    def _render(self, rows: Rows) -> Images:
        labels, place = np.unique(rows // self.per_class, return_inverse=True)
        classes = [render_class(int(label), self.split, self.per_class, self.size) for label in labels]
        return np.stack(classes)[place, rows % self.per_class]


def render_class(label: int, split: str, count: int, size: int) -> Images:
    """`count` images [count, size, size, 3] of one letter."""
    draw = np.random.RandomState(key_seed("glyphs", VERSION, split, label) % 2**32)
    canvas = blended_ground(draw, count, size)
    for _ in range(_DISTRACTORS):
        other = draw.randint(0, len(CHARACTERS), count)
        away = _away_from_centre(draw, count, size)
        cover = letter_cover(draw, other, away, between(draw, count, 0.4, 1.0) * size, size)
        canvas = paint(
            canvas, cover * between(draw, count, 0.3, 0.7)[:, None, None], draw.random_sample((count, 3))
        )
    centre = size / 2 + (draw.random_sample((count, 2)) - 0.5) * (0.3 * size)
    cover = letter_cover(draw, np.full(count, label), centre, between(draw, count, 0.5, 0.95) * size, size)
    canvas = paint(canvas, cover, light_colours(draw, count))
    return grainy(draw, canvas)


def _away_from_centre(draw: np.random.RandomState, count: int, size: int) -> Floats:
    """Places [count, 2] near one of the four edges."""
    place = draw.random_sample((count, 2)) * size
    axis, far = draw.randint(0, 2, count), draw.randint(0, 2, count)
    place[np.arange(count), axis] = far * size + (draw.random_sample(count) - 0.5) * (0.2 * size)
    return place
