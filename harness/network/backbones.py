"""Backbones by exact name: `build_backbone("resnet32_conv", last_relu=False)`.

A backbone is a module with `dim` (width of its features), `opts` (JSON options that rebuild it) and
`forward(images [B, 3, H, W]) -> {"maps": [...], "features": [B, dim]}`. `BACKBONES` may be added to by a user's file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field
from torch import Tensor, nn

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.network.adapters import adapt
from imbcil.harness.network.resnet import ResNet, ResNetPlan, ResNetStem, ResNetTail
from imbcil.harness.network.timm_models import ALIASES, PREFIX, TimmBackbone, TimmOptions, is_timm
from imbcil.harness.network.vit import ViT, ViTPlan


class Backbone(Protocol):
    """What a learner's network expects of a backbone (see the module's docstring)."""

    dim: int
    opts: dict[str, Any]

    def forward(self, images: Tensor) -> dict[str, Any]: ...


class ResNetOptions(Frozen):
    """Options of every built-in backbone; see `ResNetPlan` for what they change. `part`: "stem" is a trunk without
    the last stage, "tail" that stage alone."""

    last_relu: bool = True
    post_add_relu: bool = True
    zero_init: bool = False
    split_last: bool = False
    part: Literal["whole", "stem", "tail"] = "whole"


class StemOptions(ResNetOptions):
    """Options of ResNet-18 and larger: which stem, ImageNet's 7x7 or CIFAR's 3x3."""

    stem: Literal["7x7", "3x3"] = "7x7"


_PLANS: Mapping[str, ResNetPlan] = {
    "resnet32_conv": ResNetPlan((16, 32, 64), (5, 5, 5)),
    "resnet32_pad": ResNetPlan((16, 32, 64), (5, 5, 5), shortcut="pad"),
    "resnet18": ResNetPlan((64, 128, 256, 512), (2, 2, 2, 2), stem="7x7"),
    "resnet34": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), stem="7x7"),
    "resnet50": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), bottleneck=True, stem="7x7"),
    "resnet101": ResNetPlan((64, 128, 256, 512), (3, 4, 23, 3), bottleneck=True, stem="7x7"),
    "resnet8": ResNetPlan((16, 32, 64), (1, 1, 1), stem="3x3/2"),
    "small": ResNetPlan((24, 48, 96), (1, 1, 1), stem="3x3/2"),
    "tiny": ResNetPlan((8, 16, 16), (1, 1, 1)),
}


_PARTS: Mapping[str, type[ResNet]] = {"whole": ResNet, "stem": ResNetStem, "tail": ResNetTail}


def _resnet(kind: str, **opts: Any) -> ResNet:
    plan = _PLANS[kind]
    model = StemOptions if plan.stem == "7x7" else ResNetOptions
    options = validated(model, opts, f"backbone {kind}").model_dump()
    changes = {name: value for name, value in options.items() if name != "part"}
    return _PARTS[options["part"]](replace(plan, **changes), opts=options)


class ViTOptions(Frozen):
    """Options of `vit_tiny` and `vit_small`: `patch` pixels a token, the `size` in pixels of the position grid, blocks,
    and `lora_rank` of adapters on queries and values, all else resting (0: none, everything is trained). The other
    four are what learners ask of residual networks; a transformer has no ReLU to leave out, and ignores them."""

    patch: Annotated[int, Field(ge=1)] = 4
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    depth: Annotated[int, Field(ge=3, le=48)] = 12
    lora_rank: Annotated[int, Field(ge=0)] = 0
    last_relu: bool = True
    post_add_relu: bool = True
    zero_init: bool = False
    split_last: bool = False


_TRANSFORMERS: Mapping[str, ViTPlan] = {"vit_tiny": ViTPlan(192, 3), "vit_small": ViTPlan(384, 6)}


def _vit(kind: str, **opts: Any) -> ViT:
    options = validated(ViTOptions, opts, f"backbone {kind}")
    if options.size % options.patch:
        raise BadInput(
            f"backbone.options.patch = {options.patch}: {options.size} pixels are no whole number of such patches."
        )
    changes = options.model_dump(include={"patch", "size", "depth"})
    made = ViT(replace(_TRANSFORMERS[kind], **changes), opts=options.model_dump())
    if options.lora_rank:
        adapt(made, options.lora_rank, kind)
    return made


def _timm(kind: str, **opts: Any) -> TimmBackbone:
    return TimmBackbone(kind, validated(TimmOptions, opts, f"backbone {kind}"))


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    **{kind: partial(_resnet, kind) for kind in _PLANS},
    **{kind: partial(_vit, kind) for kind in _TRANSFORMERS},
    **{kind: partial(_timm, kind) for kind in ALIASES},
}
"""Name -> builder. A builder takes options by keyword and returns a module that fits `Backbone`."""


def kinds() -> list[str]:
    """Names that `build_backbone` answers to, sorted."""
    return sorted(BACKBONES)


def can_be_cut(kind: str) -> bool:
    """Whether a backbone has the option `part`: transformers and timm's models are whole."""
    return not (kind in _TRANSFORMERS or kind == "tresnet_m" or kind.startswith("timm:"))


def build_backbone(kind: str, **opts: Any) -> nn.Module:
    """A freshly initialised backbone; weights come from torch's current generator, so call it inside a keyed seed.

    resnet32_conv is LT-CIL's (1x1 convolutions as shortcuts), resnet32_pad PyCIL's (zero-padded ones); resnet18 to
    resnet101 compute what torchvision's do; resnet8 (one block a stage) and the wider small, both with a stem of stride 2,
    are for quick runs on 32 x 32 pixels, tiny for tests on 8 x 8.
    vit_tiny and vit_small are transformers for 32 pixels; tresnet_m and `timm:NAME` come from timm.
    Raises UnknownName for `kind`, BadInput for an option that the backbone does not have.
    """
    if kind not in BACKBONES and is_timm(kind):
        return _timm(kind, **opts)
    if kind not in BACKBONES:
        raise UnknownName("backbone", kind, [*kinds(), f"{PREFIX}NAME"])
    return BACKBONES[kind](**opts)
