"""Word vectors that a user gives for the classes: a text file as GloVe's, or an .npz; nothing in them is ever executed."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from imbcil.harness.base.errors import BadInput
from imbcil.harness.contract import LearnerConfig
from imbcil.protocols.datasets.npz import read_arrays

LARGEST_FILE = 16 << 30  # bytes
LONGEST_LINE = 1 << 20  # bytes
Vectors = dict[str, NDArray[np.float32]]


class WordsConfig(LearnerConfig):
    """Of learners that may start from word vectors. `words`: the file, for `class_vectors`; `words_sha256`: of its content,
    filled in by itself, so that a run repeats only with the file that it was planned with."""

    words: str | None = None
    words_sha256: str | None = None
    places: ClassVar[frozenset[str]] = frozenset({"words"})

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("words") is None:
            return given
        path = Path(str(given["words"])).expanduser().absolute()
        digest = _sha256(path)
        if given.get("words_sha256") not in (None, digest):
            raise ValueError(
                f"words = {path} is not the file that this run was planned with (another sha256); bring that one back"
            )
        return {**given, "words": str(path), "words_sha256": digest}


def class_vectors(path: Path, names: Sequence[str]) -> Tensor:
    """One vector a class, float32 [len(names), d].

    A text file holds a word and its numbers in each line, between blanks or, where a name has blanks itself, a tab behind
    the name; an .npz the arrays `names` [n] and `vectors` [n, d]. A class is found by its name or, failing that, as
    the mean of its words' vectors ("potted plant", "hair_drier"); capitals do not matter, and the first line of a
    word counts. Raises BadInput naming file and class or line.
    """
    wanted = {word for name in names for word in (name.lower(), *_words(name))}
    found = _from_npz(path, wanted) if path.suffix.lower() == ".npz" else _from_text(path, wanted)
    rows = [_of_class(name, found, path) for name in names]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, 0)


def _of_class(name: str, found: Vectors, path: Path) -> NDArray[np.float32]:
    if name.lower() in found:
        return found[name.lower()]
    missing = [word for word in _words(name) if word not in found]
    if missing or not _words(name):
        raise BadInput(f"{path} has no vector for the class {name!r}; add a line with its name.")
    mean: NDArray[np.float32] = np.mean([found[word] for word in _words(name)], axis=0, dtype=np.float32)
    return mean


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s_/-]+", name.lower()) if word]


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():
            raise ValueError(f"words = {path}: there is no such file")
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"words = {path}: the file is larger than 16 GiB")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"words = {path} cannot be read: {error.strerror or error}") from None


def _from_npz(path: Path, wanted: set[str]) -> Vectors:
    arrays = read_arrays(path, ("names", "vectors"))
    names, vectors = arrays["names"], arrays["vectors"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise BadInput(f"{path}: names has to be a list of strings, one for each vector.")
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or len(vectors) != len(names) or not vectors.shape[1]:
        raise BadInput(
            f"{path}: vectors has to hold floating-point numbers [{len(names)}, d], one row a name."
        )
    found: Vectors = {}
    for name, vector in zip(names.tolist(), vectors, strict=True):
        if name.lower() in wanted:
            found.setdefault(name.lower(), _finite(vector, f"{path}, vector of {name!r}"))
    return found


def _from_text(path: Path, wanted: set[str]) -> Vectors:
    found: Vectors = {}
    for number, word, numbers in _lines(path):
        if word not in wanted or word in found:
            continue
        where = f"{path}, line {number}"
        try:
            vector = np.array([float(value) for value in numbers.split()], dtype=np.float32)
        except ValueError:
            raise BadInput(f"{where}: behind the word stands something that is no number.") from None
        width = len(next(iter(found.values()), vector))
        if not len(vector) or len(vector) != width:
            raise BadInput(
                f"{where}: the vector has {len(vector)} numbers, those before it {width or 'some'}."
            )
        found[word] = _finite(vector, where)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, word in small letters, its numbers as text)."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), start=1):
                if len(line) == LONGEST_LINE:
                    raise BadInput(
                        f"{path}, line {number} is longer than 1 MiB; a line holds one word and its vector."
                    )
                text = line.decode("utf-8").rstrip("\r\n")
                word, _, numbers = text.partition("\t" if "\t" in text else " ")
                yield number, word.lower(), numbers
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as text: {error}.") from None


def _finite(vector: NDArray[Any], where: str) -> NDArray[np.float32]:
    if not np.isfinite(vector).all():
        raise BadInput(f"{where} holds NaN or infinity.")
    return vector.astype(np.float32)
