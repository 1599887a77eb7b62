"""The embedded letters: the same bits everywhere, distinct, and drawn from matplotlib's fonts."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from imbcil.harness.base.errors import MissingData
from imbcil.protocols.datasets import outlines
from imbcil.protocols.datasets.glyphs import render_class
from imbcil.protocols.datasets.glyphs_multi import draw_objects, render_block
from imbcil.protocols.datasets.outlines import EM, FONTS, MASK, font_files, fonts_fingerprint, letter_masks
from imbcil.protocols.datasets.painting import CHARACTERS, letter_cover, paint
from imbcil.protocols.library import open_dataset
from imbcil.protocols.scenario import build_scenario
from imbcil.protocols.settings import ProtocolSettings

KNOWN_FONTS = "48a453ef5fabfad17fe517d4c5299782c899bc368906c56f87315e877d6a717d"
KNOWN_PIXELS = "e65d05b762beb499526edd979ce469b57f53c45802b3a1727f6ef2ca6f976f98"
KNOWN_MULTI_PIXELS = "285268734b9c4afa4e020a221bfb7d9714d33e1097148acc5aae06143b8da91f"


def pixels() -> str:
    digest = hashlib.sha256()
    for label in (0, 41, 99):
        for split in ("train", "test"):
            digest.update(render_class(label, split, 3, 32).tobytes())
    return digest.hexdigest()


def test_rendered_pixels_are_the_same_bits_as_on_the_machine_that_wrote_this() -> None:
    if fonts_fingerprint() != KNOWN_FONTS:
        pytest.skip("this matplotlib ships other font files")
    assert pixels() == KNOWN_PIXELS


def test_rendered_multi_label_pixels_are_the_same_bits_as_on_the_machine_that_wrote_this() -> None:
    if fonts_fingerprint() != KNOWN_FONTS:
        pytest.skip("this matplotlib ships other font files")
    block = render_block("train", 7, draw_objects("train", 2400)[700:800], 64)
    assert hashlib.sha256(block.tobytes()).hexdigest() == KNOWN_MULTI_PIXELS


def test_letters_that_are_not_there_are_drawn_for_and_cover_nothing() -> None:
    labels, there = np.arange(20), np.arange(20) % 3 == 0
    centre, em = np.full((20, 2), 16.0), np.full(20, 20.0)
    first, second = np.random.RandomState(3), np.random.RandomState(3)
    every = letter_cover(first, labels, centre, em, 32)
    some = letter_cover(second, labels, centre, em, 32, there)
    assert np.array_equal(some, np.where(there[:, None, None], every, 0.0))
    assert first.randint(1 << 30) == second.randint(1 << 30)
    canvas, colour = first.random_sample((20, 32, 32, 3)), first.random_sample((20, 3))
    painted = canvas + some[..., None] * (colour[:, None, None] - canvas)
    assert np.array_equal(paint(canvas, every, colour, there), painted)


def test_threads_and_the_hash_seed_of_a_process_change_no_pixel() -> None:
    script = "from test_glyphs import pixels; print(pixels())"
    env = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "3",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    other = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == pixels()


def test_more_images_of_a_class_or_another_split_are_other_images() -> None:
    train, test = render_class(3, "train", 20, 32), render_class(3, "test", 20, 32)
    assert len({image.tobytes() for image in [*train, *test]}) == 40


def test_our_scan_conversion_agrees_with_freetype() -> None:
    """The oracle rasterises the same outlines with its own filling rule and antialiasing."""
    for character in "g8ЖΩ":
        ours = letter_masks(character)[0].astype(float)
        for mask, file in zip(ours, font_files(), strict=True):
            font = ImageFont.truetype(str(file), EM * 8, layout_engine=ImageFont.Layout.BASIC)
            canvas = Image.new("L", (MASK * 8, MASK * 8))
            ImageDraw.Draw(canvas).text((20, 20), character, fill=255, font=font)
            left, top, right, bottom = canvas.getbbox()
            centred = Image.new("L", canvas.size)
            centred.paste(
                canvas.crop((left, top, right, bottom)),
                (MASK * 4 - (right - left) // 2, MASK * 4 - (bottom - top) // 2),
            )
            theirs = np.asarray(centred, float).reshape(MASK, 8, MASK, 8).mean(axis=(1, 3))
            assert np.abs(mask - theirs).mean() < 4, (character, file.name)
            assert mask.sum() == pytest.approx(theirs.sum(), rel=0.03)


def test_a_hundred_letters_are_all_there_in_sixteen_fonts_and_no_two_alike() -> None:
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 100
    masks = letter_masks(CHARACTERS).astype(float)
    assert masks.shape == (100, len(FONTS), MASK, MASK)
    assert masks.any(axis=(2, 3)).all()
    assert not masks[:, :, [0, -1]].any() and not masks[:, :, :, [0, -1]].any()  # nothing is cut off
    plain = masks[:, 0].reshape(100, -1)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    assert (plain @ plain.T - np.eye(100)).max() < 0.97


def test_missing_fonts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "FONTS", ("NoSuchFont",))
    with pytest.raises(MissingData, match=r"NoSuchFont.ttf is missing.*reinstall matplotlib"):
        font_files()


def test_the_long_tail_is_real_and_the_test_images_are_balanced() -> None:
    built = build_scenario(ProtocolSettings(protocol="lfs", dataset="glyphs100-lt"), say=lambda line: None)
    assert built.images is not None
    assert (built.embedded, built.images.train.shape) == (True, (15_000, 32, 32, 3))
    counts = built.raw_counts
    assert (counts.max(), counts.min()) == (150, 1)
    assert [(counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum(), (counts < 20).sum()] == [
        9,
        35,
        56,
    ]
    assert np.bincount(built.images.test_labels).tolist() == [20] * 100


def test_rows_of_the_cache_are_the_rendered_classes() -> None:
    cached = open_dataset("glyphs100", None, lambda line: None)
    build_scenario(ProtocolSettings(protocol="lfs", dataset="glyphs100"), say=lambda line: None)
    assert np.array_equal(cached.splits["train"].images[150 * 7 : 150 * 8], render_class(7, "train", 150, 32))
    assert np.array_equal(cached.splits["test"].images[20 * 7 : 20 * 8], render_class(7, "test", 20, 32))
