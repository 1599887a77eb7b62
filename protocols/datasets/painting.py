"""Painting letters on cluttered coloured grounds, in IEEE basic operations on single elements."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imbcil.protocols.datasets.outlines import EM, FONTS, MASK, letter_masks
from imbcil.protocols.datasets.source import Images

# Shuffled once, so that no script or case lies in the head of a long tail by its place in the alphabet.
CHARACTERS = (
    "mX=~ΣLǂЧðTHrΩG€ΘFБRPΦ4Nß7ЋΨbЮɮωγYѢfΓkSeЦπʔЭλtE$ɷZ¥adM¤3Æ+þ5h¬BΛ6n∂gψξϡ£VζИσ©μQ8δЯ2Δ9ΠЉqAyШʞKηʘU±ДWЖΞ"
)
_GROUND = 4  # the ground is a grid of so many random colours a side, blended
_AT_ONCE = 8  # images: few enough for the processor's cache

Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def _masks() -> Floats:
    """Coverage 0..1 of every letter in every font, with a border of nothing: [C, fonts, MASK + 2, MASK + 2]."""
    masks = letter_masks(CHARACTERS) / 255.0
    return np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))


def between(draw: np.random.RandomState, count: int, low: float, high: float) -> Floats:
    """Uniform numbers [count] from `low` to `high`."""
    return low + draw.random_sample(count) * (high - low)


def blended_ground(draw: np.random.RandomState, count: int, size: int) -> Floats:
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


def letter_cover(
    draw: np.random.RandomState,
    labels: NDArray[np.int64],
    centre: Floats,
    em: Floats,
    size: int,
    there: NDArray[np.bool_] | None = None,
) -> Floats:
    """How far letters of height `em` pixels cover each pixel, rotated up to 30 degrees: [count, size, size].

    there [count]: letters that are wanted (None: all); the others are drawn for all the same, and cover nothing.
    """
    fonts = draw.randint(0, len(FONTS), len(labels))
    half = (draw.random_sample(len(labels)) - 0.5) * 0.54  # tangent of half the angle: no sine, no cosine
    cover = np.zeros((len(labels), size, size))
    for few in _parts(len(labels), there):
        cover[few] = _covered(labels[few] * len(FONTS) + fonts[few], half[few], centre[few], em[few], size)
    return cover


def _covered(masks: NDArray[np.int64], half: Floats, centre: Floats, em: Floats, size: int) -> Floats:
    """Coverage by letters, each given by the number of its mask."""
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
    at = (masks[:, None, None] * (MASK + 2) + row) * (MASK + 2) + column
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + MASK + 2] * (1 - right) + flat[at + MASK + 3] * right
    cover: Floats = upper * (1 - down) + lower * down
    return cover


def paint(canvas: Floats, cover: Floats, colour: Floats, there: NDArray[np.bool_] | None = None) -> Floats:
    """`canvas` [n, S, S, 3] with `colour` [n, 3] laid on by `cover` [n, S, S], in images that are `there` [n]."""
    count, size = cover.shape[:2]
    lines = canvas.reshape(
        count, size, size * 3
    ).copy()  # numpy is slow where the last axis has three numbers
    for few in _parts(count, there):
        full, behind = np.tile(colour[few], size)[:, None], lines[few]
        lines[few] = behind + np.repeat(cover[few], 3, axis=2) * (full - behind)
    return lines.reshape(canvas.shape)


def _parts(count: int, there: NDArray[np.bool_] | None) -> list[NDArray[np.int64]]:
    """Numbers of the images that are there, a few at a time."""
    rows = np.arange(count) if there is None else np.flatnonzero(there)
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]


def light_colours(draw: np.random.RandomState, count: int) -> Floats:
    """A light colour [count, 3]; the grounds are dark to middling."""
    return 0.7 + draw.random_sample((count, 3)) * 0.3


def grainy(draw: np.random.RandomState, canvas: Floats) -> Images:
    """The canvas with noise, as bytes."""
    noise = (draw.random_sample(canvas.shape) + draw.random_sample(canvas.shape) - 1) * 0.2
    return np.floor(np.clip(canvas + noise, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
