"""Weights to start from: read without running anything, checked for what they have seen, identified by their content."""

import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from stat import S_ISREG
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imbcil.harness.base.errors import BadInput
from imbcil.harness.network.adapters import adapters_of
from imbcil.harness.network.network import Network
from imbcil.harness.network.resnet import ResNet, ResNetStem, ResNetTail
from imbcil.harness.network.timm_models import TimmBackbone, tresnet_names

LARGEST_WEIGHTS = 8 << 30  # bytes
HEADS = re.compile(r"(^|\.)(head|fc|classifier|last_linear|logits|linear)(\d*|s|_dist)(\.|$)")
# Outputs of a head for COCO's or VOC's classes, alone or with a background class; 91 and 90 count COCO's gaps.
LEAKY_OUTPUTS = {80: "COCO", 81: "COCO", 90: "COCO", 91: "COCO", 20: "VOC", 21: "VOC"}
# Offered by three projects as ImageNet-21K weights, listed by their maker as trained on COCO (mAP 81.8), and the name
# under which those projects tell people to store it.
MISLABELLED = re.compile(r"ms_?coco_?tr*esnet|tresnet_m_224_21k", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, what they were trained on as far as declared, and why they may be leaky ("" if they are not)."""

    source: str  # a file's name, or "torchvision:..." or "timm:..."
    sha256: str
    tensors: Mapping[str, Tensor]
    trained_on: tuple[str, ...] = ()
    leaky: str = ""
    mean: tuple[float, ...] | None = None  # of the pictures that they were trained on, where it is known
    std: tuple[float, ...] | None = None


def read_weights_file(path: Path) -> Weights:
    """The state dict in a safetensors file, or in a file of torch.save that holds tensors alone.

    Nothing in the file is executed. A wrapper `state_dict` or `model` and prefixes such as `module.` are taken off.
    Raises BadInput in one sentence for a file that is missing, too large, damaged, or holds anything but tensors.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadInput(f"--weights {path} cannot be read: {error.strerror or error}.") from None
    if not S_ISREG(status.st_mode):
        raise BadInput(f"--weights {path} is no ordinary file.")
    if not 0 < status.st_size <= LARGEST_WEIGHTS:
        raise BadInput(f"--weights {path} has {status.st_size} bytes; weights have some, and at most 8 GiB.")
    declared: tuple[str, ...] = ()
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"--weights {path} cannot be read: {error.strerror or error}.") from None
    if path.suffix.lower() == ".safetensors":
        content, declared = _safetensors(path)
    else:
        content = _torch_file(path)
    tensors = plain_tensors(content, f"--weights {path}")
    leaky = _leaks(path.name, tensors)
    return Weights(path.name, digest, tensors, declared, leaky)


def _safetensors(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            declared = (opened.metadata() or {}).get("trained_on", "")
            content = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadInput(f"--weights {path} cannot be read as safetensors: {_reason(error)}.") from None
    return content, tuple(part.strip() for part in declared.split(",") if part.strip())


def _torch_file(path: Path) -> Mapping[str, Any]:
    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises a dozen types on damaged or hostile files
        raise BadInput(
            f"--weights {path} cannot be read as tensors alone ({type(error).__name__}); store a state dict, "
            "best as safetensors."
        ) from None
    if not isinstance(content, Mapping):
        raise BadInput(f"--weights {path} holds no state dict but a {type(content).__name__}.")
    return content


def _refuse_packed(path: Path) -> None:
    """torch.save stores tensors as they are; a compressed entry could unfold to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # an older format, or damaged: the reader says so
    if packed:
        raise BadInput(f"--weights {path} holds compressed entries, which torch.save never writes.")


def plain_tensors(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without wrappers and prefixes. Raises BadInput for anything else in it."""
    for wrapper in ("state_dict", "model"):
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            content = inner
    tensors = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BadInput(f"{where}: the entry {str(name)[:80]!r} is no tensor; store the state dict alone.")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
            raise BadInput(f"{where}: the tensor {name[:80]!r} is no plain array of numbers.")
        tensors[name] = value
    if not tensors:
        raise BadInput(f"{where} holds no tensors.")
    for prefix in ("module.", "backbone.", "model."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _leaks(name: str, tensors: Mapping[str, Tensor]) -> str:
    if MISLABELLED.search(name):
        return (
            f"{name} is known as a checkpoint that was trained on COCO though it is offered as ImageNet-21K's"
        )
    for key, value in tensors.items():
        what = LEAKY_OUTPUTS.get(value.shape[0]) if value.ndim == 2 else None
        if what is not None and HEADS.search(key):
            return f"{name} carries a head of {value.shape[0]} outputs ({key}), as {what} has classes"
    return ""


def load_into(backbone: nn.Module, weights: Weights) -> None:
    """Copy weights into a backbone, in place; what belongs to a head stays out.

    Raises BadInput naming the first tensor that is missing, misshapen, not finite, or unknown.
    """
    wanted = _wanted(backbone)
    given = _renamed(weights.tensors, wanted)
    strangers = sorted(
        name for name in given.keys() - wanted.keys() - _other_parts(backbone) if not HEADS.search(name)
    )
    missing = sorted(
        name for name in wanted.keys() - given.keys() if not name.endswith("num_batches_tracked")
    )
    if missing or strangers:
        problem = f"lacks {missing[0]!r}" if missing else f"has {strangers[0]!r}, which it does not know"
        raise BadInput(
            f"--weights {weights.source} does not fit the backbone: it {problem}; "
            "give weights of the same model (--set backbone.name=...)."
        )
    with torch.no_grad():
        for name, target in wanted.items():
            if name in given:
                _copy(target, given[name], name, weights.source)


def network_parts(net: Network) -> list[nn.Module]:
    """What weights are for: the trunk, where there is one, and every backbone."""
    return [*([net.trunk] if net.trunk is not None else []), *net.backbones]


def _wanted(backbone: nn.Module) -> dict[str, Tensor]:
    """What a file has to bring, by its public name: everything but fresh adapters."""
    fresh = tuple(f"{name}." for name in adapters_of(backbone))
    prefix = "model." if isinstance(backbone, TimmBackbone) else ""
    return {
        name.removeprefix(prefix): value
        for name, value in backbone.state_dict().items()
        if not name.startswith(fresh or ("\0",))
    }


def _other_parts(backbone: nn.Module) -> frozenset[str]:
    """Names of the whole network of which a stem or a tail is one part."""
    if not isinstance(backbone, ResNetStem | ResNetTail):
        return frozenset()
    with torch.device("meta"):
        return frozenset(ResNet(backbone.plan).state_dict())


def _renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """TResNet's released names (in-place batch norms) as timm's; all else as it is."""
    released = "body.conv1.conv.weight" in wanted and "body.conv1.conv.weight" not in tensors
    return tresnet_names(tensors) if released else tensors


def _copy(target: Tensor, value: Tensor, name: str, source: str) -> None:
    if name == "pos_embed":
        value = _resized_positions(value, target)
    if tuple(value.shape) != tuple(target.shape):
        raise BadInput(
            f"--weights {source} does not fit the backbone: {name!r} is {tuple(value.shape)} there and "
            f"{tuple(target.shape)} here."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise BadInput(f"--weights {source}: {name!r} holds numbers that are not finite.")
    if target.device.type != "meta":
        target.copy_(value)


def _resized_positions(value: Tensor, target: Tensor) -> Tensor:
    """Position embeddings [1, class tokens + side², dim] of a square grid on another one, where both fit that form."""
    if value.ndim != 3 or target.ndim != 3 or value.shape == target.shape or value.shape[0] != 1:
        return value
    old, new = (isqrt(tokens.shape[1]) for tokens in (value, target))
    extra = value.shape[1] - old**2
    if extra != target.shape[1] - new**2 or value.shape[2] != target.shape[2] or value.shape[1] > 1 << 16:
        return value
    square = value[:, extra:].float().transpose(1, 2).unflatten(2, (old, old))
    resized = functional.interpolate(square, (new, new), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([value[:, :extra].float(), resized.flatten(2).transpose(1, 2)], dim=1)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
