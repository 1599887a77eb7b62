"""Backbones by exact name: `build_backbone("resnet32_conv", last_relu=False)`.

A backbone is a module with `dim` (width of its features), `opts` (JSON options that rebuild it) and
`forward(images [B, 3, H, W]) -> {"maps": [...], "features": [B, dim]}`. `BACKBONES` may be added to by a user's file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from imbcil.harness.base.config import Frozen, validated
from imbcil.harness.base.errors import UnknownName
from imbcil.harness.network.resnet import ResNet, ResNetPlan, ResNetStem, ResNetTail


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


BACKBONES: dict[str, Callable[..., nn.Module]] = {kind: partial(_resnet, kind) for kind in _PLANS}
"""Name -> builder. A builder takes options by keyword and returns a module that fits `Backbone`."""


def kinds() -> list[str]:
    """Names that `build_backbone` answers to, sorted."""
    return sorted(BACKBONES)


def build_backbone(kind: str, **opts: Any) -> nn.Module:
    """A freshly initialised backbone; weights come from torch's current generator, so call it inside a keyed seed.

    resnet32_conv is LT-CIL's (1x1 convolutions as shortcuts), resnet32_pad PyCIL's (zero-padded ones); resnet18 to
    resnet101 compute what torchvision's do; small is for quick runs on 32 x 32 pixels, tiny for tests on 8 x 8.
    Raises UnknownName for `kind`, BadInput for an option that the backbone does not have.
    """
    if kind not in BACKBONES:
        raise UnknownName("backbone", kind, kinds())
    return BACKBONES[kind](**opts)
