"""The cache: damage is found and mended, an interrupted decode goes on, two processes share one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_data import small_arrays, write_tree

from imbcil.harness.base.errors import BadInput, MissingData, RunStopped
from imbcil.protocols import cache_build, decoding, library
from imbcil.protocols.cache import cache_key, open_cache
from imbcil.protocols.inventory import check_datasets
from imbcil.protocols.library import import_dataset
from imbcil.protocols.scenario import Scenario, preview_scenario

ScenarioOf = Callable[..., Scenario]


def edit(path: Path, change: Callable[[bytearray], None], keep_time: bool = False) -> None:
    """Change a file's bytes, as a failing disk or a careless person would."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip_last_byte(content: bytearray) -> None:
    content[-1] ^= 255


def cut_in_half(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize(
    "file", ["train.npy", "test.npy", "train_labels.npy", "test_hashes.npy", "meta.json"]
)
@pytest.mark.parametrize("damage", [flip_last_byte, cut_in_half], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_noticed_said_and_mended(
    file: str, damage: Callable, import_small: Callable, scenario_of: ScenarioOf, said: list[str]
) -> None:
    folder = import_small().folder
    digest = scenario_of().digest
    edit(folder / file, damage)
    built = scenario_of()
    assert built.digest == digest
    assert built.images is not None
    assert np.array_equal(built.images.train, small_arrays()["x_train"])
    assert len([line for line in said if "damaged" in line]) == 1
    said.clear()
    scenario_of()
    assert said == []


def test_sizes_of_imported_data_are_shown_even_where_the_cache_is_damaged(
    import_small: Callable, scenario_of: ScenarioOf, root: Path, said: list[str]
) -> None:
    folder, built = import_small().folder, scenario_of()
    edit(folder / "meta.json", cut_in_half)
    seen = preview_scenario(built.settings, data_root=root, say=said.append)
    assert [len(phase.train) for phase in seen.phases] == [len(phase.train) for phase in built.phases]
    assert seen.digest is None  # no image was decoded to look at sizes
    assert scenario_of().digest == built.digest


def test_a_missing_file_of_the_cache_is_made_again(import_small: Callable, scenario_of: ScenarioOf) -> None:
    folder = import_small().folder
    digest = scenario_of().digest
    (folder / "train_labels.npy").unlink()
    assert scenario_of().digest == digest


def test_a_cache_that_was_only_touched_is_checked_once_and_kept(
    import_small: Callable, scenario_of: ScenarioOf, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = import_small().folder
    os.utime(folder / "train.npy")
    monkeypatch.setattr(library, "read_source", lambda *_: pytest.fail("nothing has to be decoded"))
    scenario_of()
    assert said == []
    assert not open_cache(folder).suspect


def test_data_check_finds_what_the_cheap_check_cannot(import_small: Callable, root: Path) -> None:
    folder = import_small().folder
    edit(folder / "train.npy", flip_last_byte, keep_time=True)
    assert list(check_datasets(["small"], root, lambda line: None)) == [
        "small: 270 of 270 images decoded, 1 damaged."
    ]
    assert list(check_datasets(["small"], root, lambda line: None)) == [
        "small: 269 of 270 images decoded, 0 damaged."
    ]


def test_a_damaged_cache_whose_source_is_gone_says_what_to_do(
    import_small: Callable, scenario_of: ScenarioOf, tmp_path: Path
) -> None:
    folder = import_small().folder
    edit(folder / "meta.json", cut_in_half)
    (tmp_path / "small.npz").unlink()
    with pytest.raises(MissingData, match=r"which is gone.*data import small"):
        scenario_of()


def test_a_source_that_changed_is_not_mixed_with_what_was_decoded(
    import_small: Callable, scenario_of: ScenarioOf, tmp_path: Path
) -> None:
    folder = import_small().folder
    edit(folder / "meta.json", cut_in_half)
    np.savez(tmp_path / "small.npz", **small_arrays(seed=1))
    with pytest.raises(MissingData, match="has changed since"):
        scenario_of()


def test_a_sound_cache_needs_its_source_no_more(
    import_small: Callable, scenario_of: ScenarioOf, tmp_path: Path
) -> None:
    import_small()
    (tmp_path / "small.npz").unlink()
    assert scenario_of().digest


def test_pictures_are_decoded_when_a_scenario_needs_them_and_only_those(
    tmp_path: Path, root: Path, scenario_of: ScenarioOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 30, "b": 30, "c": 30})
    monkeypatch.setattr(library, "DECODE_AT_IMPORT", 0)
    cached = import_dataset("small", tree, "auto", root, lambda line: None)
    assert not cached.splits["train"].hashes.any()
    built = scenario_of(dataset="small-lt", rho=10.0)
    train = open_cache(cached.folder).splits["train"]
    decoded = np.flatnonzero(train.hashes.any(axis=1))
    assert decoded.tolist() == sorted(np.concatenate([phase.train_before_holdout for phase in built.phases]))
    assert len(decoded) == 30 + 9 + 3
    digest = built.digest
    scenario_of()  # the balanced set decodes the rest
    assert open_cache(cached.folder).splits["train"].hashes.any(axis=1).all()
    assert scenario_of(dataset="small-lt", rho=10.0).digest == digest


def test_an_interrupted_decode_keeps_what_is_on_disk_and_goes_on(
    tmp_path: Path, root: Path, scenario_of: ScenarioOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 30, "b": 30, "c": 30})
    monkeypatch.setattr(library, "DECODE_AT_IMPORT", 0)
    monkeypatch.setattr(decoding, "PIECE_BYTES", 10 * 9 * 9 * 3)  # ten pictures
    folder = import_dataset("small", tree, "auto", root, lambda line: None).folder
    real, calls = cache_build.write_hashes, []

    def stops_after_four_pieces(path: Path, rows: np.ndarray, hashes: np.ndarray) -> None:
        calls.append(len(rows))
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(path, rows, hashes)

    monkeypatch.setattr(cache_build, "write_hashes", stops_after_four_pieces)
    with pytest.raises(KeyboardInterrupt):
        scenario_of()
    assert int(open_cache(folder).splits["train"].hashes.any(axis=1).sum()) == 40

    calls.clear()
    monkeypatch.setattr(cache_build, "write_hashes", lambda *args: (calls.append(len(args[1])), real(*args)))
    built = scenario_of()
    assert sum(calls) == 50 + 6  # the rest of the training images, and all test images
    assert built.images is not None
    assert built.images.train[35, 0, 0].tolist() == [1, 5, 7]


def test_a_decode_by_worker_processes_gives_the_same_images(
    tmp_path: Path, root: Path, scenario_of: ScenarioOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 20, "b": 20, "c": 20})
    monkeypatch.setattr(decoding, "PIECE_BYTES", 7 * 9 * 9 * 3)
    import_dataset("alone", tree, "auto", root, lambda line: None)
    monkeypatch.setattr(decoding, "SPAWN_PAYS", 1)
    import_dataset("small", tree, "auto", root, lambda line: None)
    assert scenario_of().digest == scenario_of(dataset="alone").digest


def test_a_full_disk_stops_with_a_sentence_and_what_was_there_stays(
    import_small: Callable, scenario_of: ScenarioOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_small()
    digest = scenario_of().digest

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "write_hashes", full)
        with pytest.raises(RunStopped, match=r"No space left on device.*IMBCIL_DATA"):
            import_small(**small_arrays(seed=5))
    assert scenario_of().digest == digest


def test_too_little_space_is_said_before_anything_is_decoded(
    import_small: Callable, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr(cache_build.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(BadInput, match=r"need .* GB in .* are free"):
        import_small()
    assert not list(root.glob("small/*/meta.json"))


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    np.savez(tmp_path / "small.npz", **small_arrays())
    with pytest.raises(BadInput, match="Set IMBCIL_DATA"):
        import_dataset("small", tmp_path / "small.npz", "auto", blocker, lambda line: None)


def test_processes_that_need_the_same_images_at_once_all_get_them(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 30, "b": 30, "c": 30})
    monkeypatch.setattr(library, "DECODE_AT_IMPORT", 0)
    import_dataset("small", tree, "auto", root, lambda line: None)
    script = (
        "import sys; from pathlib import Path\n"
        "from imbcil.protocols.scenario import build_scenario\n"
        "from imbcil.protocols.settings import ProtocolSettings\n"
        "asked = ProtocolSettings(protocol='lfs', dataset='small', n_tasks=3)\n"
        "print(build_scenario(asked, data_root=Path(sys.argv[1])).digest)\n"
    )
    command = [sys.executable, "-c", script, str(root)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    digests = {racer.communicate(timeout=100)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_a_new_import_under_the_same_name_replaces_the_old_one(
    import_small: Callable, scenario_of: ScenarioOf, root: Path
) -> None:
    first = import_small().folder
    second = import_small(**small_arrays(seed=5)).folder
    assert first != second
    assert not first.exists()
    images = scenario_of().images
    assert images is not None
    assert np.array_equal(images.train, small_arrays(seed=5)["x_train"])


def test_the_key_covers_content_and_stored_size() -> None:
    assert len({cache_key("a", 8), cache_key("b", 8), cache_key("a", 9)}) == 3


def test_the_record_of_a_source_is_plain_json(import_small: Callable, root: Path, tmp_path: Path) -> None:
    import_small()
    record = json.loads((root / "small" / "source.json").read_text())
    assert (record["kind"], record["path"], record["size"]) == ("npz", str(tmp_path / "small.npz"), 8)
