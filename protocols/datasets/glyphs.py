"""glyphs100: a hundred letters and signs in sixteen fonts, rendered here, on cluttered coloured grounds.

Every random number comes from numpy's frozen legacy generator, keyed by split and class; every pixel from
IEEE basic operations on single elements. The images are the same bits on every machine that has the same
font files, and a class is the same whichever others are rendered with it.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.randomness import key_seed
from imbcil.protocols.catalogue import DatasetEntry
from imbcil.protocols.datasets.outlines import EM, FONTS, MASK, fonts_fingerprint, letter_masks
from imbcil.protocols.datasets.source import SPLITS, Images, Rows, Source, SplitSource

VERSION = 5  # raise it when rendering changes
# Shuffled once, so that no script or case lies in the head of a long tail by its place in the alphabet.
CHARACTERS = (
    "mX=~ΣLǂЧðTHrΩG€ΘFБRPΦ4Nß7ЋΨbЮɮωγYѢfΓkSeЦπʔЭλtE$ɷZ¥adM¤3Æ+þ5h¬BΛ6n∂gψξϡ£VζИσ©μQ8δЯ2Δ9ΠЉqAyШʞKηʘU±ДWЖΞ"
)
_GROUND = 4  # the ground is a grid of so many random colours a side, blended
_DISTRACTORS = 2

Floats = NDArray[np.float64]


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


@lru_cache(maxsize=1)
def _masks() -> Floats:
    """Coverage 0..1 of every letter in every font, with a border of nothing: [C, fonts, MASK + 2, MASK + 2]."""
    masks = letter_masks(CHARACTERS) / 255.0
    return np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))


def render_class(label: int, split: str, count: int, size: int) -> Images:
    """`count` images [count, size, size, 3] of one letter."""
    draw = np.random.RandomState(key_seed("glyphs", VERSION, split, label) % 2**32)
    canvas = _ground(draw, count, size)
    for _ in range(_DISTRACTORS):
        other = draw.randint(0, len(CHARACTERS), count)
        away = _away_from_centre(draw, count, size)
        cover = _cover(draw, other, away, _between(draw, count, 0.4, 1.0) * size, size)
        canvas = _paint(
            canvas, cover * _between(draw, count, 0.3, 0.7)[:, None, None], draw.random_sample((count, 3))
        )
    centre = size / 2 + (draw.random_sample((count, 2)) - 0.5) * (0.3 * size)
    cover = _cover(draw, np.full(count, label), centre, _between(draw, count, 0.5, 0.95) * size, size)
    canvas = _paint(canvas, cover, _light(draw, count))
    noise = (draw.random_sample(canvas.shape) + draw.random_sample(canvas.shape) - 1) * 0.2
    return np.floor(np.clip(canvas + noise, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _between(draw: np.random.RandomState, count: int, low: float, high: float) -> Floats:
    return low + draw.random_sample(count) * (high - low)


def _ground(draw: np.random.RandomState, count: int, size: int) -> Floats:
    """A few random colours around one shade, blended: [count, size, size, 3] in 0..1."""
    shade = draw.random_sample((count, 1, 1, 3)) * 0.6
    corners = np.clip(shade + (draw.random_sample((count, _GROUND, _GROUND, 3)) - 0.5) * 0.5, 0.0, 1.0)
    place = np.arange(size) * ((_GROUND - 1) / (size - 1))
    low = np.minimum(place.astype(np.int64), _GROUND - 2)
    part = (place - low)[None, :, None, None]
    rows = corners[:, low] * (1 - part) + corners[:, low + 1] * part
    part = part.reshape(1, 1, size, 1)
    ground: Floats = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    return ground


def _away_from_centre(draw: np.random.RandomState, count: int, size: int) -> Floats:
    """Places [count, 2] near one of the four edges."""
    place = draw.random_sample((count, 2)) * size
    axis, far = draw.randint(0, 2, count), draw.randint(0, 2, count)
    place[np.arange(count), axis] = far * size + (draw.random_sample(count) - 0.5) * (0.2 * size)
    return place


def _cover(
    draw: np.random.RandomState, labels: NDArray[np.int64], centre: Floats, em: Floats, size: int
) -> Floats:
    """How far letters of height `em` pixels cover each pixel, rotated up to 30 degrees: [count, size, size]."""
    fonts = draw.randint(0, len(FONTS), len(labels))
    half = (draw.random_sample(len(labels)) - 0.5) * 0.54  # tangent of half the angle: no sine, no cosine
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    pixels = np.arange(size) + 0.5
    dx, dy = pixels[None, None, :] - centre[:, :1, None], pixels[None, :, None] - centre[:, 1:, None]
    cosine, sine, grow = cosine[:, None, None], sine[:, None, None], (EM / em)[:, None, None]
    u = (cosine * dx + sine * dy) * grow + (MASK / 2 + 0.5)  # half a pixel, and one of border
    v = (cosine * dy - sine * dx) * grow + (MASK / 2 + 0.5)
    u, v = np.clip(u, 0.0, MASK + 0.999), np.clip(v, 0.0, MASK + 0.999)
    column, row = u.astype(np.int64), v.astype(np.int64)
    right, down = u - column, v - row
    flat = _masks().reshape(-1)
    at = ((labels * len(FONTS) + fonts)[:, None, None] * (MASK + 2) + row) * (MASK + 2) + column
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + MASK + 2] * (1 - right) + flat[at + MASK + 3] * right
    cover: Floats = upper * (1 - down) + lower * down
    return cover


def _paint(canvas: Floats, cover: Floats, colour: Floats) -> Floats:
    return canvas + cover[..., None] * (colour[:, None, None, :] - canvas)


def _light(draw: np.random.RandomState, count: int) -> Floats:
    """A light colour [count, 3]; the grounds are dark to middling."""
    return 0.7 + draw.random_sample((count, 3)) * 0.3
