"""Word vectors from a user's file: how classes are found, identity by content, and one sentence for each bad file."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_multi_scenario, tiny_plan

from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.word_vectors import WordsConfig, class_vectors

GLOVE = "the 9 9\nPotted 1 2\nplant 3 6\ncat 0.5 -1e-1\ncat 7 7\nhair 0 0\ndrier 4 2\n"


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.2d.txt"
    path.write_text(GLOVE)
    return path


def test_a_class_is_found_by_its_name_or_as_the_mean_of_its_words(glove: Path):
    found = class_vectors(glove, ["Cat", "potted plant", "hair_drier"])
    assert np.allclose(found.numpy(), [[0.5, -0.1], [2, 4], [2, 1]])


def test_a_name_with_blanks_stands_before_a_tab_and_wins_over_its_words(glove: Path):
    glove.write_text(GLOVE + "potted plant\t8 8\n")
    assert class_vectors(glove, ["potted plant"]).tolist() == [[8, 8]]


def test_arrays_serve_as_well(tmp_path: Path):
    path = saved(tmp_path / "words.npz", names=np.array(["dog", "Cat"]), vectors=np.array([[1.0, 2], [3, 4]]))
    assert class_vectors(path, ["cat"]).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("cat 1 2\n", "has no vector for the class 'hot dog'; add a line with its name"),
        ("cat 1 2\nhot 1 x\n", "line 2: behind the word stands something that is no number"),
        ("cat 1 2\nhot 1 2 3\n", "line 2: the vector has 3 numbers, those before it 2"),
        ("cat\n", "line 1: the vector has 0 numbers"),
        ("cat 1 nan\n", "line 1 holds NaN or infinity"),
        ("cat 1 2\n\xff", "cannot be read as text"),
        ("", "has no vector for the class 'cat'"),
        ("x" * (1 << 20), "line 1 is longer than 1 MiB"),
    ],
)
def test_a_bad_text_file_gets_one_sentence(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "words.txt"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput) as refusal:
        class_vectors(path, ["cat", "hot dog"])
    assert sentence in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"names": np.array(["cat"])}, "the array vectors is missing; wanted are names, vectors"),
        ({"names": np.array(["cat"], dtype=object), "vectors": np.ones((1, 2))}, "pickled Python objects"),
        ({"names": np.array([1]), "vectors": np.ones((1, 2))}, "names has to be a list of strings"),
        (
            {"names": np.array(["cat"]), "vectors": np.ones((2, 2))},
            "vectors has to hold floating-point numbers [1, d]",
        ),
        (
            {"names": np.array(["cat"]), "vectors": np.array([["a"]])},
            "vectors has to hold floating-point numbers",
        ),
        (
            {"names": np.array(["cat"]), "vectors": np.array([[np.inf]])},
            "vector of 'cat' holds NaN or infinity",
        ),
    ],
)
def test_bad_arrays_get_one_sentence(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str):
    with pytest.raises(BadInput) as refusal:
        class_vectors(saved(tmp_path / "words.npz", **arrays), ["cat"])
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused_where_settings_are_read(tmp_path: Path):
    with pytest.raises(BadInput, match="there is no such file") as refusal:
        validated(WordsConfig, {"words": str(tmp_path / "absent.txt")}, "agcn")
    assert "absent.txt" in str(refusal.value)


def test_a_changed_file_does_not_repeat_the_run_that_it_was_planned_with(glove: Path):
    planned = validated(WordsConfig, {"words": str(glove)}, "agcn")
    assert validated(WordsConfig, planned.model_dump(), "agcn") == planned
    glove.write_text("cat 1 2\n")
    with pytest.raises(BadInput, match="not the file that this run was planned with"):
        validated(WordsConfig, planned.model_dump(), "agcn")


def test_a_run_is_known_by_what_the_file_says_and_not_by_where_it_lies(tmp_path: Path):
    def key(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content)
        settings = {"agcn.words": str(path)}
        run, _ = tiny_plan("agcn", tmp_path / "store", scenario=tiny_multi_scenario(), settings=settings)
        assert str(path) in run.config  # a stored config finds it from any folder
        assert "agcn.words" not in run.info.overrides
        return run.info.run_key

    first = key("a.txt", "cat 1 2\n")
    assert key("b.txt", "cat 1 2\n") == first
    assert key("c.txt", "cat 2 1\n") != first
