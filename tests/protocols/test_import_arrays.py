"""Importing an .npz: what is accepted, and every way to refuse what is not."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import small_arrays

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.datasets import npz
from imbcil.protocols.datasets.npz import read_npz
from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario


def saved(path: Path, drop: str = "", **arrays: Any) -> Path:
    held = {**small_arrays(), **arrays}
    np.savez(path, **{name: array for name, array in held.items() if name != drop})
    return path


def with_value(value: object, dtype: object) -> np.ndarray:
    array = small_arrays()["x_train"].astype(dtype)
    array[17, 0, 0, 0] = value
    return array


LABELS = small_arrays()["y_train"]
IMAGES = small_arrays()["x_train"]
REFUSED = {
    "floats": ({"x_train": IMAGES / 255}, "x_train is float64; images are uint8"),
    "NaN": ({"x_train": with_value(np.nan, float)}, "image 17 holds NaN"),
    "infinity": ({"x_train": with_value(np.inf, np.float32)}, "image 17 holds NaN or infinity"),
    "wide integers": ({"x_train": IMAGES.astype(np.int64)}, "x_train is int64"),
    "channels first": ({"x_train": IMAGES.transpose(0, 3, 1, 2)}, "wanted is .images, height, width, 3."),
    "flat images": ({"x_train": IMAGES.reshape(240, -1)}, "wanted is .images, height, width, 3."),
    "four channels": ({"x_train": np.zeros((240, 8, 8, 4), np.uint8)}, "has shape"),
    "no images": ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "x_train is empty"),
    "other size in test": ({"x_test": np.zeros((30, 9, 9, 3), np.uint8)}, "make them alike"),
    "too few labels": ({"y_train": LABELS[:-1]}, "one label for each of 240 images"),
    "labels in columns": ({"y_train": LABELS[:, None]}, "one label for each"),
    "fractional labels": ({"y_train": LABELS + 0.5}, "labels are whole numbers"),
    "words as labels": ({"y_train": LABELS.astype(str)}, "labels are whole numbers"),
    "negative label": ({"y_train": LABELS - 1}, "the label -1"),
    "huge label": ({"y_train": np.where(LABELS == 5, 10**12, LABELS)}, "allowed are 0 to"),
    "label beyond the names": ({"class_names": np.array(["a", "b"])}, "the label 5; allowed are 0 to 1"),
    "names that are numbers": ({"class_names": np.arange(6)}, "list of strings"),
    "test class without training images": ({"y_test": np.full(30, 9)}, "test images have the class 9"),
    "objects": ({"y_train": np.array([{"a": 1}] * 240, dtype=object)}, "pickled Python objects"),
    "objects as names": ({"class_names": np.array(["a", None], dtype=object)}, "pickled Python objects"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_do_not_fit_are_refused_and_named(name: str, tmp_path: Path) -> None:
    arrays, part = REFUSED[name]
    path = saved(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadInput, match=part) as caught:
        read_npz(path)
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(missing: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"the array {missing} is missing"):
        read_npz(saved(tmp_path / "bad.npz", drop=missing))


def test_a_hostile_pickle_in_an_npz_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"

    class Bomb:
        def __reduce__(self) -> tuple:
            return (mark.write_text, ("gotcha",))

    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    path = saved(tmp_path / "bad.npz", drop="y_test")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_test.npy", array.getvalue() + pickle.dumps([Bomb()]))
    with pytest.raises(BadInput, match="pickled Python objects, which are never read"):
        read_npz(path)
    assert not mark.exists()


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **{**small_arrays(), "x_train": np.zeros((100_000, 32, 32, 3), np.uint8)})
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(npz.np, "load", lambda *_, **__: pytest.fail("nothing may be unpacked"))
    with pytest.raises(BadInput, match="unpacks to 292 MiB"):
        read_npz(path)


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 32, 32, 3)}
    )
    path = saved(tmp_path / "bad.npz", drop="x_train")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(BadInput, match=r"bad.npz"):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_what_is_no_npz_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"is no \.npz file, or it is cut short"):
        read_npz(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "bad.npz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadInput, match="cut short"):
        read_npz(path)


def test_nothing_is_half_imported_when_a_file_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(BadInput):
        import_dataset(
            "small", saved(tmp_path / "bad.npz", x_train=IMAGES / 255), "auto", root, lambda line: None
        )
    assert not root.exists()


def test_a_refused_import_leaves_the_former_one(
    tmp_path: Path, root: Path, import_small: Callable, scenario_of: Callable[..., Scenario]
) -> None:
    import_small()
    digest = scenario_of().digest
    with pytest.raises(BadInput):
        import_dataset(
            "small", saved(tmp_path / "bad.npz", x_train=IMAGES / 255), "auto", root, lambda line: None
        )
    assert scenario_of().digest == digest


def test_grey_images_get_three_equal_channels(
    import_small: Callable, scenario_of: Callable[..., Scenario]
) -> None:
    grey = {name: small_arrays()[name][..., 0] for name in ("x_train", "x_test")}
    import_small(**grey)
    images = scenario_of().images
    assert images is not None
    assert np.array_equal(images.train, np.repeat(grey["x_train"][..., None], 3, axis=3))


def test_a_gap_in_the_labels_closes_and_the_old_numbers_stay_as_names(
    import_small: Callable, scenario_of: Callable[..., Scenario], said: list[str]
) -> None:
    numbers = np.array([0, 1, 2, 4, 5, 9])
    import_small(y_train=numbers[small_arrays()["y_train"]], y_test=numbers[small_arrays()["y_test"]])
    built = scenario_of()
    assert built.class_names == ("0", "1", "2", "4", "5", "9")
    assert said[0].startswith("4 labels without a training image were left out")
    assert built.images is not None
    assert np.array_equal(built.images.train_labels, small_arrays()["y_train"])


def test_class_names_are_kept_in_order_of_arrival_without_control_characters(
    import_small: Callable, scenario_of: Callable[..., Scenario]
) -> None:
    import_small(class_names=np.array(["ant", "bee\x1b[31m", "cat\n", "dog", "eel", "fox"]))
    built = scenario_of(order="random:0")
    named = dict(zip(built.order, built.class_names, strict=True))
    assert named == {0: "ant", 1: "bee [31m", 2: "cat", 3: "dog", 4: "eel", 5: "fox"}


def test_images_that_are_larger_or_not_square_are_stored_as_the_central_square(
    tmp_path: Path, root: Path, scenario_of: Callable[..., Scenario]
) -> None:
    wide = np.zeros((240, 8, 12, 3), np.uint8)
    wide[:, :, 2:10] = IMAGES
    path = saved(tmp_path / "wide.npz", x_train=wide, x_test=np.zeros((30, 8, 12, 3), np.uint8))
    import_dataset("small", path, "auto", root, lambda line: None)
    images = scenario_of().images
    assert images is not None
    assert np.array_equal(images.train, IMAGES)


@pytest.mark.parametrize("name", ["Small", "a/b", "..", "", "x" * 65, "-x", "a b", "cifar100\n"])
def test_a_name_that_is_no_plain_name_is_refused(name: str, tmp_path: Path, root: Path) -> None:
    with pytest.raises(BadInput, match="dataset name"):
        import_dataset(name, saved(tmp_path / "small.npz"), "auto", root, lambda line: None)
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("small-lt", "auto", "is made from 'small'"),
        ("glyphs100", "auto", "is rendered on first use"),
        ("food101-tailtest", "auto", "shares the images of food101"),
        ("cifar100", "auto", "has 6 classes and cifar100 has 100"),
        ("small", "voc", "is no folder; wanted is one with VOCdevkit"),
        ("small", "nzp", "did you mean npz"),
        ("small", "folder", "is no folder"),
    ],
)
def test_an_import_under_a_wrong_name_or_kind_is_refused(
    name: str, kind: str, part: str, tmp_path: Path, root: Path
) -> None:
    with pytest.raises(BadInput, match=part):
        import_dataset(name, saved(tmp_path / "small.npz"), kind, root, lambda line: None)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.npz does not exist"):
        import_dataset("small", tmp_path / "nowhere.npz", "auto", root, lambda line: None)
