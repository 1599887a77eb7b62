"""Weights of a request: from a file or a download, refused where they leak, checked before anything trains."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.network.adapters import adapters_of
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.network import starting_spec
from imbcil.harness.network.timm_models import is_timm, load_timm, timm_name, timm_statistics
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan
from imbcil.harness.settings import BackboneSettings
from imbcil.harness.weights import Weights, load_into, plain_tensors, read_weights_file
from imbcil.protocols.seen_classes import class_family, has_seen

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DOWNLOADS = ("torchvision", "timm")


def resolve_weights(request: RunRequest, backbone: BackboneSettings, dataset: str) -> Weights | None:
    """What `--weights` names, ready to be loaded; None without it.

    Raises BadInput for weights that cannot be read or do not fit, and for ones that have seen the labels or the
    classes of the dataset, unless `--allow-leaky-weights`: then `leaky` says why the run is marked.
    """
    if request.weights is None:
        if request.allow_leaky_weights or backbone.trained_on:
            flag = "--allow-leaky-weights" if request.allow_leaky_weights else "backbone.trained_on"
            raise BadInput(f"{flag} says something of weights, and there are none; add --weights FILE.")
        return None
    origin, _, version = request.weights.partition(":")
    if origin in DOWNLOADS:
        found = (_torchvision if origin == "torchvision" else _timm)(backbone.name, version)
    else:
        found = read_weights_file(Path(request.weights).expanduser())
    found = _with_statistics(
        replace(found, trained_on=tuple(dict.fromkeys((*found.trained_on, *backbone.trained_on)))),
        backbone.name,
    )
    found = replace(found, leaky="; ".join(filter(None, (found.leaky, _classes_seen(found, dataset)))))
    if found.leaky and not request.allow_leaky_weights:
        raise BadInput(
            f"--weights {request.weights}: {found.leaky}; use other weights, or --allow-leaky-weights, which marks the "
            "run in every table."
        )
    return found


def check_backbones(plans: Sequence[Plan], weights: Weights | None) -> list[str]:
    """Build the backbones of every plan without memory, fit the weights to them and show them to the plug-ins;
    sentences for the log.

    Raises BadInput for a backbone or an option that does not exist, a library that is missing, weights that do not fit,
    a plug-in that finds nothing to do.
    """
    said = set()
    for plan in plans:
        backbone = plan.recipe.backbone
        learner = plan.learner.kind(plan.learner.cfg, plan.learner.name)
        spec = learner.design(starting_spec(backbone.name, backbone.options))
        imagined_parts = []
        for part in (spec.trunk, *spec.backbones):
            if part is None:
                continue
            with torch.device("meta"):
                imagined = build_backbone(part.kind, **part.options)
            imagined_parts.append(imagined)
            if weights is not None:
                load_into(imagined, weights)
            elif adapters_of(imagined):
                said.add(
                    "Adapters are trained on random weights that rest; --weights gives them something to adapt."
                )
        said |= {part.kind(part.cfg, part.name).check_backbones(imagined_parts) for part in plan.plugins}
    return sorted(said - {""})


def _classes_seen(weights: Weights, dataset: str) -> str:
    for name in weights.trained_on:
        if has_seen(name, dataset):
            return f"{weights.source} was trained on {name} and has seen classes of {dataset}"
    return ""


def _with_statistics(weights: Weights, kind: str) -> Weights:
    """Pictures are normalised as those that the weights were trained on, where that is known."""
    if is_timm(kind):
        mean, std = timm_statistics(kind)
        return replace(weights, mean=mean, std=std)
    if any(class_family(name) == "imagenet" for name in weights.trained_on):
        return replace(weights, mean=IMAGENET[0], std=IMAGENET[1])
    return weights


def _torchvision(kind: str, version: str) -> Weights:
    from torchvision.models import get_model_weights, list_models

    if kind not in list_models():
        raise BadInput(f"--weights torchvision: torchvision has no weights for {kind}; give a file.")
    versions = get_model_weights(kind)
    if version and version not in versions.__members__:
        raise UnknownName(f"version of torchvision's {kind}", version, list(versions.__members__))
    chosen = versions[version] if version else versions.DEFAULT
    try:
        content = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a full disk, a wrong hash: libraries raise what they like
        raise _not_fetched("torchvision", error) from None
    return _downloaded(f"torchvision:{chosen.name}", content, ("imagenet",))


def _timm(kind: str, version: str) -> Weights:
    timm = load_timm()
    name = version or timm_name(kind)
    if not is_timm(kind) or not timm.is_model(name):
        raise BadInput(
            f"--weights timm:{name}: timm has no such weights for {kind}; give --weights timm:MODEL.TAG with "
            "--set backbone.name=timm:MODEL."
        )
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise _not_fetched("timm", error) from None
    tag = str(getattr(model.pretrained_cfg, "tag", None) or model.pretrained_cfg.get("tag", ""))
    return _downloaded(f"timm:{name}", model.state_dict(), trained_on_of(tag))


def trained_on_of(tag: str) -> tuple[str, ...]:
    """timm's tag of weights in our words: `augreg_in21k_ft_in1k` -> imagenet21k and imagenet."""
    words = tag.split("_")
    found = [
        "imagenet21k" if word in ("in21k", "in22k", "in12k") else "imagenet"
        for word in words
        if word in ("in1k", "in12k", "in21k", "in22k")
    ]
    return tuple(dict.fromkeys(found)) or ((tag,) if tag else ())


def _downloaded(source: str, content: Any, trained_on: tuple[str, ...]) -> Weights:
    tensors = plain_tensors(content, f"--weights {source}")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\n".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return Weights(source, digest.hexdigest(), tensors, trained_on)


def _not_fetched(origin: str, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")
    return BadInput(
        f"--weights {origin}: the weights cannot be fetched ({reason}); give them as --weights FILE."
    )
