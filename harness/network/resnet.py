"""One residual network in the clear, from which all built-in backbones are made.

Module names follow torchvision's ResNet (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, ...), so that public
weights load without renaming.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Shortcut = Literal["conv", "pad"]
Stem = Literal["7x7", "3x3", "3x3/2"]


@dataclass(frozen=True)
class ResNetPlan:
    """What a residual network looks like.

    widths: channels inside the blocks of each stage; depths: blocks per stage. The first stage keeps the stem's
    resolution, each later one halves it. bottleneck: three convolutions per block and four times the width at its end.
    shortcut: how a block that changes shape passes its input on, by a 1x1 convolution with batch norm ("conv") or by
    subsampling and appended zero channels ("pad"). stem: "7x7" is ImageNet's (stride 2, then max-pooling), "3x3"
    CIFAR's (full resolution), "3x3/2" the same with stride 2. last_relu: whether the network's last block ends in a
    ReLU (LUCIR leaves it out); post_add_relu: whether any block does; zero_init: start the last batch norm of each
    block at zero, so that blocks begin as the identity; split_last: give the map before the last block too (PODNet's
    fourth level).
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    bottleneck: bool = False
    shortcut: Shortcut = "conv"
    stem: Stem = "3x3"
    last_relu: bool = True
    post_add_relu: bool = True
    zero_init: bool = False
    split_last: bool = False


class PadShortcut(nn.Module):
    """Every second pixel, and zeros for the channels that are missing: a shortcut without parameters."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut. x [B, n_in, H, W] -> [B, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int, shortcut: Shortcut, end_relu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(shortcut, n_in, width, stride)
        self.end_relu = end_relu

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm before the addition."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)  # in place: another map in memory costs a twentieth of a step
        return functional.relu(out, inplace=True) if self.end_relu else out


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions. x [B, n_in, H, W] -> [B, 4 width, H / stride, ...]."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int, shortcut: Shortcut, end_relu: bool) -> None:
        super().__init__()
        n_out = width * self.expansion
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(shortcut, n_in, n_out, stride)
        self.end_relu = end_relu

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm before the addition."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = functional.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return functional.relu(out, inplace=True) if self.end_relu else out


def _shortcut(kind: Shortcut, n_in: int, n_out: int, stride: int) -> nn.Module:
    if stride == 1 and n_in == n_out:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(n_out - n_in, stride)
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class ResNet(nn.Module):
    """A backbone: images [B, 3, H, W] -> {"maps": one per stage, "features": [B, dim] float32}.

    maps[i] [B, C_i, H_i, W_i] is the output of stage i before pooling; the last one ends in a ReLU exactly if
    `last_relu` says so, and features are its global average. Under autocast maps keep the low precision, features do
    not. Convolutions start from N(0, 2 / (k^2 n_out)), Kaiming's fan-out rule, which torchvision, FACIL (LT-CIL) and
    PyCIL all use; batch norms from weight 1 and bias 0.
    """

    def __init__(self, plan: ResNetPlan, opts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.opts = dict(opts or {})
        self.plan = plan
        kernel, stride = {"7x7": (7, 2), "3x3": (3, 1), "3x3/2": (3, 2)}[plan.stem]
        self.conv1 = nn.Conv2d(3, plan.widths[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(plan.widths[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if plan.stem == "7x7" else nn.Identity()
        self.stages: list[str] = []
        n_in = plan.widths[0]
        for index in range(len(plan.widths)):
            name = f"layer{index + 1}"
            blocks = _stage(plan, index, n_in)
            self.add_module(name, nn.Sequential(*blocks))
            self.stages.append(name)
            n_in = plan.widths[index] * type(blocks[0]).expansion
        self.dim = n_in
        _initialise(self, plan.zero_init)

    def forward(self, images: Tensor) -> dict[str, Any]:
        x, maps = self.through_stages(
            self.maxpool(functional.relu(self.bn1(self.conv1(images)), inplace=True))
        )
        return {"maps": maps, "features": pooled(x)}

    def through_stages(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(what the last of this network's stages gives, all maps on the way)."""
        maps = []
        for name in self.stages:
            stage = getattr(self, name)
            splits = self.plan.split_last and name == f"layer{len(self.plan.widths)}"
            for number, block in enumerate(stage):
                if splits and 0 < number == len(stage) - 1:
                    maps.append(x)
                x = block(x)
            maps.append(x)
        return x, maps


class ResNetStem(ResNet):
    """All but the last stage, a trunk for several tails: images -> {"x": input of a tail, "maps"} (MEMO)."""

    def __init__(self, plan: ResNetPlan, opts: dict[str, Any] | None = None) -> None:
        super().__init__(plan, opts)
        delattr(self, self.stages.pop())
        self.dim = plan.widths[-2] * (Bottleneck.expansion if plan.bottleneck else 1)

    def forward(self, images: Tensor) -> dict[str, Any]:
        x, maps = self.through_stages(
            self.maxpool(functional.relu(self.bn1(self.conv1(images)), inplace=True))
        )
        return {"x": x, "maps": maps}


class ResNetTail(ResNet):
    """The last stage alone, on a stem's output: x -> {"maps", "features": [B, dim]}."""

    def __init__(self, plan: ResNetPlan, opts: dict[str, Any] | None = None) -> None:
        super().__init__(plan, opts)
        for name in ("conv1", "bn1", "maxpool", *self.stages[:-1]):
            delattr(self, name)
        self.stages = self.stages[-1:]

    def forward(self, images: Tensor) -> dict[str, Any]:
        x, maps = self.through_stages(images)
        return {"maps": maps, "features": pooled(x)}


def pooled(x: Tensor) -> Tensor:
    """Global average [B, C] of a map, in float32 at least."""
    return (x if x.dtype == torch.float64 else x.float()).mean((2, 3))


def _stage(plan: ResNetPlan, index: int, n_in: int) -> Sequence[BasicBlock | Bottleneck]:
    block = Bottleneck if plan.bottleneck else BasicBlock
    width, depth, blocks = plan.widths[index], plan.depths[index], []
    for position in range(depth):
        last = index == len(plan.widths) - 1 and position == depth - 1
        end_relu = plan.post_add_relu and (plan.last_relu or not last)
        stride = 2 if index > 0 and position == 0 else 1
        blocks.append(block(n_in, width, stride, plan.shortcut, end_relu))
        n_in = width * block.expansion
    return blocks


def _initialise(net: nn.Module, zero_init: bool) -> None:
    for module in net.modules():
        # on the meta device nothing is drawn, and torch would import its compiler for it
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init:
        for module in net.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)
