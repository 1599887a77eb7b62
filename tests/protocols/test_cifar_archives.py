"""The official CIFAR files are pickles: read only after their checksum agrees, and by an unpickler that knows little."""

import hashlib
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets import cifar
from imbcil.protocols.datasets.cifar import OFFICIAL, load_restricted, read_cifar


@pytest.mark.parametrize(("name", "theirs"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_the_checksums_are_those_that_torchvision_knows(name: str, theirs: type) -> None:
    ours = OFFICIAL[name]
    assert (ours.archive, ours.archive_md5, ours.url) == (theirs.filename, theirs.tgz_md5, theirs.url)
    assert list(ours.train.items()) == [tuple(item) for item in theirs.train_list]
    assert list(ours.test.items()) == [tuple(item) for item in theirs.test_list]
    assert ours.names == (theirs.meta["filename"], theirs.meta["md5"])
    assert (ours.names_key, ours.folder) == (theirs.meta["key"], theirs.base_folder)


def tiny_files() -> dict[str, bytes]:
    """CIFAR-100's three files with four images."""
    data = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
    batch = {"data": data, "fine_labels": [1, 0, 1, 0]}
    meta = {"fine_label_names": ["apple", "bee"]}
    return {"train": pickle.dumps(batch, 3), "test": pickle.dumps(batch, 3), "meta": pickle.dumps(meta, 3)}


@pytest.fixture
def tiny_official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of tiny files whose checksums are official for the length of a test."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    sums = {}
    for name, content in tiny_files().items():
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-100-python")
    official = replace(
        OFFICIAL["cifar100"],
        archive_md5=hashlib.md5((tmp_path / "cifar-100-python.tar.gz").read_bytes()).hexdigest(),
        train={"train": sums["train"]},
        test={"test": sums["test"]},
        names=("meta", sums["meta"]),
    )
    monkeypatch.setattr(cifar, "OFFICIAL", {"cifar100": official})
    return folder


@pytest.mark.parametrize("place", ["cifar-100-python", ".", "cifar-100-python.tar.gz"])
def test_the_folder_the_one_above_and_the_archive_give_the_same_images(
    place: str, tiny_official: Path
) -> None:
    source = read_cifar(tiny_official.parent / place)
    assert source.class_names == ("apple", "bee")
    assert source.splits["train"].labels.tolist() == [1, 0, 1, 0]
    images = source.splits["train"].piece(np.array([1]))()
    planes = (np.arange(3072, 6144) % 256).astype(np.uint8).reshape(3, 32, 32)  # stored plane by plane
    assert np.array_equal(images[0], planes.transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["train", "meta", "../cifar-100-python.tar.gz"])
def test_a_file_whose_checksum_differs_is_never_unpickled(
    name: str, tiny_official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tiny_official / name
    changed.write_bytes(changed.read_bytes() + b"x")
    monkeypatch.setattr(cifar, "load_restricted", lambda _: pytest.fail("nothing may be unpickled"))
    with pytest.raises(BadInput, match="is not the official file"):
        read_cifar(changed if name.endswith("gz") else tiny_official)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "call",
    [os.system, eval, exec, open, np.load, np.fromfile, getattr, pickle.loads],
    ids=lambda call: call.__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_even_if_its_checksum_agreed(
    call: object, protocol: int, tmp_path: Path
) -> None:
    mark = tmp_path / "was-run"
    with pytest.raises(BadInput, match="which is never loaded"):
        load_restricted(pickle.dumps({"data": Hostile(call, f"touch {mark}")}, protocol))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({"a": 1})[:-3]])
def test_a_pickle_that_is_no_dictionary_or_is_cut_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(BadInput, match="A CIFAR file"):
        load_restricted(content)


def test_arrays_are_read_as_python_2_and_the_numpy_of_then_pickled_them() -> None:
    # Written out by hand, opcode by opcode: {"data": uint8 array [250, 251, 1, 2]} in protocol 2, cPickle's form.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x04\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\xfa\xfb\x01\x02tb"
    )
    loaded = load_restricted(b"\x80\x02}U\x04data" + array + b"s.")
    assert loaded["data"].tolist() == [250, 251, 1, 2]
    assert loaded["data"].dtype == np.uint8


def test_what_is_no_cifar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not an official CIFAR archive or folder"):
        read_cifar(tmp_path)


def test_an_archive_member_is_never_written_to_disk(tiny_official: Path) -> None:
    archive = tiny_official.parent / "cifar-100-python.tar.gz"
    before = sorted(tiny_official.parent.rglob("*"))
    read_cifar(archive)
    assert sorted(tiny_official.parent.rglob("*")) == before
