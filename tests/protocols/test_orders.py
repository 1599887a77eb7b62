"""In which order classes arrive."""

from pathlib import Path

import numpy as np
import pytest

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.orders import class_order

HUNDRED = [str(label) for label in range(100)]
NAMES = ["ant", "bee", "cat", "dog"]


def test_shuffled_is_the_order_of_seed_1993_that_every_table_uses() -> None:
    assert class_order("shuffled", HUNDRED)[:9] == (68, 56, 78, 8, 23, 84, 90, 65, 74)
    assert sorted(class_order("shuffled", HUNDRED)) == list(range(100))


def test_ordered_is_label_order_and_random_takes_its_seed() -> None:
    assert class_order("ordered", NAMES) == (0, 1, 2, 3)
    assert class_order("random:1993", HUNDRED) == class_order("shuffled", HUNDRED)
    assert class_order("random:5", HUNDRED) == tuple(np.random.RandomState(5).permutation(100))


def test_a_varied_order_adds_the_runs_seed_and_seed_0_is_the_published_one() -> None:
    assert class_order("shuffled", HUNDRED, shift=0) == class_order("shuffled", HUNDRED)
    assert class_order("shuffled", HUNDRED, shift=2) == tuple(np.random.RandomState(1995).permutation(100))
    with pytest.raises(BadInput, match="can vary"):
        class_order("ordered", NAMES, shift=1)


@pytest.mark.parametrize(
    "text",
    [
        "3\n1\n0\n2\n",
        "dog\nbee\nant\ncat\n",
        "# by hand\ndog\n1  # bee\nant\n\n2\n",
        "3, 1, 0, 2",
        "[3,1,0,2]\n",
    ],
)
def test_an_order_file_holds_labels_or_names_one_a_line_or_in_one_row(tmp_path: Path, text: str) -> None:
    file = tmp_path / "order.txt"
    file.write_text(text)
    assert class_order(str(file), NAMES) == (3, 1, 0, 2)


def test_labels_are_labels_even_where_classes_are_named_by_digits(tmp_path: Path) -> None:
    """Glyphs are: class 3 may be called 7. A file of names still names them."""
    file, names = tmp_path / "order.txt", ["a", "0", "1", "b"]
    file.write_text("3\n0\n2\n1\n")
    assert class_order(str(file), names) == (3, 0, 2, 1)
    file.write_text("b\n0\n1\na\n")
    assert class_order(str(file), names) == (3, 1, 2, 0)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"0\n1\n2\n", "has 3 entries"),
        (b"0\n1\n2\n2\n", "3 of them different"),
        (b"0\n1\n2\n4\n", "'4' is neither"),
        (b"0\n1\n2\n-1\n", "'-1' is neither"),
        (b"ant\nbee\ncat\ncow\n", "'cow' is neither"),
        (b"", "has 0 entries"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_an_order_file_that_is_no_permutation_is_refused(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "order.txt"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=part):
        class_order(str(file), NAMES)


@pytest.mark.parametrize(
    "order", ["shufled", "random:", "random:-1", "random:x", "random:99999999999", "/", ""]
)
def test_a_word_that_is_no_order_and_no_file_is_refused(order: str) -> None:
    with pytest.raises(BadInput, match="order = "):
        class_order(order, NAMES)
