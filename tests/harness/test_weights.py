"""Weights from files: read without running anything, fitted by name and shape, refused where they leak."""

import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imbcil.harness.base.errors import BadInput
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.weights import load_into, read_weights_file


def tiny() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return build_backbone("tiny").state_dict()


def stored(folder: Path, tensors: dict, name: str = "w.safetensors", **metadata: str) -> Path:
    path = folder / name
    if name.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata or None)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", lambda tensors: tensors),
        ("w.pth", lambda tensors: tensors),
        ("w.pt", lambda tensors: {"state_dict": tensors}),
        ("w.pt", lambda tensors: {"model": {f"module.{key}": value for key, value in tensors.items()}}),
    ],
)
def test_weights_come_back_as_they_were_stored_and_a_head_stays_out(tmp_path, name, wrap) -> None:
    tensors = {**tiny(), "fc.weight": torch.zeros(1000, 16), "fc.bias": torch.zeros(1000)}
    found = read_weights_file(stored(tmp_path, wrap(tensors), name))
    made = build_backbone("tiny")
    load_into(made, found)
    assert all(torch.equal(value, tensors[key]) for key, value in made.state_dict().items())
    assert found.leaky == "" and len(found.sha256) == 64


def test_the_hash_follows_from_the_content_not_from_the_name(tmp_path) -> None:
    one, other = stored(tmp_path, tiny(), "a.safetensors"), stored(tmp_path, tiny(), "b.safetensors")
    changed = {**tiny(), "bn1.bias": torch.ones(8)}
    assert read_weights_file(one).sha256 == read_weights_file(other).sha256
    assert (
        read_weights_file(stored(tmp_path, changed, "c.safetensors")).sha256 != read_weights_file(one).sha256
    )


def test_weights_declare_what_they_were_trained_on(tmp_path) -> None:
    path = stored(tmp_path, tiny(), trained_on="imagenet21k, imagenet")
    assert read_weights_file(path).trained_on == ("imagenet21k", "imagenet")


@pytest.mark.parametrize(("outputs", "what"), [(80, "COCO"), (91, "COCO"), (20, "VOC"), (21, "VOC")])
@pytest.mark.parametrize("key", ["fc.weight", "head.fc.weight", "classifier.weight", "head.weight"])
def test_a_head_with_the_classes_of_coco_or_voc_is_called_leaky(tmp_path, outputs, what, key) -> None:
    found = read_weights_file(stored(tmp_path, {**tiny(), key: torch.zeros(outputs, 16)}))
    assert f"a head of {outputs} outputs ({key}), as {what}" in found.leaky


@pytest.mark.parametrize("outputs", [1000, 11221, 100, 365])
def test_other_heads_are_not(tmp_path, outputs) -> None:
    tensors = {
        **tiny(),
        "head.fc.weight": torch.zeros(outputs, 16),
        "layer1.0.odd.weight": torch.zeros(80, 3),
    }
    assert read_weights_file(stored(tmp_path, tensors)).leaky == ""


@pytest.mark.parametrize(
    "name", ["MS_COCO_TRresNet_M_224_81.8.pth", "tresnet_m_224_21k.pth", "ms_coco_tresnet_m.safetensors"]
)
def test_the_known_mislabelled_checkpoint_is_leaky_by_its_names(tmp_path, name) -> None:
    assert "trained on COCO" in read_weights_file(stored(tmp_path, tiny(), name)).leaky
    assert read_weights_file(stored(tmp_path, tiny(), "tresnet_m_miil_21k.pth")).leaky == ""


class Harmful:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path) -> None:
    for name, save in (
        ("a.pth", torch.save),
        ("b.pkl", lambda thing, path: path.write_bytes(pickle.dumps(thing))),
    ):
        path, mark = tmp_path / name, tmp_path / f"{name}.mark"
        save({"conv1.weight": Harmful(mark)}, path)
        with pytest.raises(BadInput, match="cannot be read as tensors alone"):
            read_weights_file(path)
        assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("w.safetensors", b"\xff" * 64), ("w.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"), ("w.pth", b"PK\x03\x04 broken"),
     ("w.pth", b"hello"), ("w.safetensors", b""), ("w.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}")],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        BadInput, match=r"--weights .*(cannot be read|has 0 bytes|holds no tensors)"
    ) as caught:
        read_weights_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_unfold_is_refused(tmp_path) -> None:
    plain, packed = stored(tmp_path, tiny(), "w.pth"), tmp_path / "packed.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    with pytest.raises(BadInput, match="compressed entries"):
        read_weights_file(packed)


def test_missing_folders_and_giant_files_are_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_weights_file(tmp_path / "nowhere.pth")
    with pytest.raises(BadInput, match="no ordinary file"):
        read_weights_file(tmp_path)
    with (tmp_path / "big.safetensors").open("wb") as stream:
        stream.truncate((8 << 30) + 1)
    with pytest.raises(BadInput, match="at most 8 GiB"):
        read_weights_file(tmp_path / "big.safetensors")


@pytest.mark.parametrize(
    ("content", "said"),
    [([1, 2], "no state dict but a list"), ({"epoch": 3}, "'epoch' is no tensor"), ({3: torch.ones(1)}, "'3' is no tensor"),
     ({"a": torch.ones(2).to_sparse()}, "no plain array"), ({"a": torch.ones(2, dtype=torch.cfloat)}, "no plain array"), ({}, "no tensors")],
)  # fmt: skip
def test_what_is_no_state_dict_is_refused(tmp_path, content, said) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=said):
        read_weights_file(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("bn1.bias"), "lacks 'bn1.bias'"),
        (lambda t: t.update({"layer9.weight": torch.ones(1)}), "has 'layer9.weight'"),
        (lambda t: t.update({"bn1.bias": torch.ones(1).expand(10**12)}), "'bn1.bias' is (1000000000000,) there and (8,) here"),
        (lambda t: t["bn1.bias"].fill_(float("nan")), "'bn1.bias' holds numbers that are not finite"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_name_the_first_tensor(tmp_path, change, said) -> None:
    tensors = tiny()
    change(tensors)
    found = read_weights_file(stored(tmp_path, tensors, "w.pth"))
    with pytest.raises(BadInput) as caught:
        load_into(build_backbone("tiny"), found)
    assert said in str(caught.value)


def test_a_stem_and_a_tail_take_their_share_of_the_whole(tmp_path) -> None:
    tensors = tiny()
    found = read_weights_file(stored(tmp_path, tensors))
    for part in ("stem", "tail"):
        made = build_backbone("tiny", part=part)
        load_into(made, found)
        assert all(torch.equal(value, tensors[key]) for key, value in made.state_dict().items())


def test_positions_of_another_grid_are_interpolated_and_adapters_start_fresh(tmp_path) -> None:
    source = build_backbone("vit_tiny", size=16, depth=3)
    with torch.no_grad():
        source.pos_embed[:, 1:] = 0.5  # a constant stays one on any grid
    found = read_weights_file(stored(tmp_path, source.state_dict()))
    made = build_backbone("vit_tiny", size=32, depth=3, lora_rank=2)
    load_into(made, found)
    torch.testing.assert_close(made.pos_embed[:, 1:], torch.full((1, 64, 192), 0.5))
    assert torch.equal(made.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.equal(made.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    assert not made.blocks[0].attn.qkv.q.up.any()


def test_weights_of_torchvision_load_into_ours_by_name(tmp_path) -> None:
    from torchvision.models import resnet18

    reference = resnet18().eval()
    made = build_backbone("resnet18").eval()
    load_into(made, read_weights_file(stored(tmp_path, reference.state_dict())))
    reference.fc = nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(made(x)["features"], reference(x), atol=1e-5, rtol=1e-5)


def test_tresnets_released_names_need_timm(tmp_path, monkeypatch) -> None:
    pytest.importorskip("timm")
    made = build_backbone("tresnet_m")
    released = {"body.conv1.0.weight": torch.zeros(64, 48, 3, 3)}
    found = read_weights_file(stored(tmp_path, released))
    with pytest.raises(BadInput, match="lacks 'body"):
        load_into(made, found)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match="pip install"):
        load_into(made, found)
