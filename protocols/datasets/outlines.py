"""Letter shapes as coverage masks, from the outlines of fonts that matplotlib ships.

Outlines are whole numbers in the font file and the scan conversion below is ours, in IEEE basic operations
only: the same font files give the same bits with every version of FreeType, Pillow and numpy.
"""

import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import MissingData

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
)
MASK = 48  # side of a mask in pixels
EM = 32  # pixels of a mask per em; the widest letter is 1.3 em
_FINE = 4  # sub-pixels per pixel and axis
_CURVE = 6  # straight pieces per curve

Point = tuple[float, float]
Floats = NDArray[np.float64]


def font_files() -> tuple[Path, ...]:
    """Paths of the fonts. Raises MissingData where matplotlib does not ship them."""
    spec = find_spec("matplotlib")
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0] if places else "matplotlib") / "mpl-data" / "fonts" / "ttf"
    files = tuple(folder / f"{name}.ttf" for name in FONTS)
    for file in files:
        if not file.is_file():
            raise MissingData(
                f"{file} is missing: embedded data are rendered from matplotlib's fonts; reinstall matplotlib."
            )
    return files


def fonts_fingerprint() -> str:
    """sha256 over the font files."""
    digest = hashlib.sha256()
    for file in font_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def letter_masks(characters: Sequence[str]) -> NDArray[np.uint8]:
    """Coverage 0..255 of each character in each font, centred on its bounding box: [C, fonts, MASK, MASK]."""
    from fontTools.ttLib import TTFont

    masks = np.empty((len(characters), len(FONTS), MASK, MASK), np.uint8)
    for column, file in enumerate(font_files()):
        with TTFont(file, lazy=True) as font:
            glyphs, names = font.getGlyphSet(), font.getBestCmap()
            units = font["head"].unitsPerEm
            for row, character in enumerate(characters):
                masks[row, column] = _scan(_edges(glyphs, names[ord(character)]), units)
    return masks


def _edges(glyphs: object, name: str) -> Floats:
    """Straight edges x0, y0, x1, y1 of a glyph, in font units, curves cut into pieces: [E, 4]."""
    from fontTools.pens.recordingPen import DecomposingRecordingPen

    pen = DecomposingRecordingPen(glyphs)
    glyphs[name].draw(pen)  # type: ignore[index]
    edges: list[tuple[float, float, float, float]] = []
    for contour in _contours(pen.value):
        edges += [(*start, *end) for start, end in zip(contour, contour[1:] + contour[:1], strict=True)]
    return np.array(edges, np.float64).reshape(-1, 4)


def _contours(commands: Sequence[tuple[str, Sequence[Point]]]) -> Iterator[list[Point]]:
    points: list[Point] = []
    for command, arguments in commands:
        if command == "qCurveTo":
            points += _quadratic_pieces(points, list(arguments))
        elif command in ("closePath", "endPath"):
            yield points
            points = []
        else:  # moveTo, lineTo
            points.append(arguments[0])


def _quadratic_pieces(before: list[Point], arguments: list[Point | None]) -> list[Point]:
    """Points along TrueType's quadratic splines; between two control points lies their middle, implied."""
    controls = [point for point in arguments[:-1] if point is not None]
    end, start = arguments[-1], before[-1] if before else None
    if end is None:  # a closed contour without a point on the curve
        controls = [point for point in arguments if point is not None]
        end = start = _middle(controls[-1], controls[0])
    assert start is not None
    pieces: list[Point] = []
    for index, control in enumerate(controls):
        stop = end if index == len(controls) - 1 else _middle(control, controls[index + 1])
        for step in range(1, _CURVE + 1):
            t = step / _CURVE
            a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
            pieces.append(
                (a * start[0] + b * control[0] + c * stop[0], a * start[1] + b * control[1] + c * stop[1])
            )
        start = stop
    return pieces or [end]


def _middle(first: Point, second: Point) -> Point:
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2


def _scan(edges: Floats, units: int) -> NDArray[np.uint8]:
    """Fill edges by the non-zero winding rule on a fine grid, then average it down to MASK x MASK."""
    side, scale = MASK * _FINE, EM * _FINE / units
    x, y = edges[:, 0::2], edges[:, 1::2]
    x = (x - (x.min() + x.max()) / 2) * scale + side / 2
    y = ((y.min() + y.max()) / 2 - y) * scale + side / 2  # font units grow upwards
    rows = np.arange(side)[None, :] + 0.5
    y0, y1 = y[:, :1], y[:, 1:]
    crossed = (np.minimum(y0, y1) <= rows) & (rows < np.maximum(y0, y1))
    edge, row = np.nonzero(crossed)
    along = (rows[0, row] - y0[edge, 0]) / (y1[edge, 0] - y0[edge, 0])
    at = x[edge, 0] + along * (x[edge, 1] - x[edge, 0])
    column = np.clip(np.ceil(at - 0.5), 0, side).astype(np.int64)
    turns = np.zeros((side, side + 1), np.int64)
    np.add.at(turns, (row, column), np.where(y1[edge, 0] > y0[edge, 0], 1, -1))
    inside = np.cumsum(turns, axis=1)[:, :side] != 0
    covered = inside.reshape(MASK, _FINE, MASK, _FINE).sum(axis=(1, 3))
    mask: NDArray[np.uint8] = (covered * 255 // _FINE**2).astype(np.uint8)
    return mask
