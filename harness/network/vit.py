"""Small vision transformers for small pictures, and the wrapper that makes timm's models backbones.

Module names follow timm's VisionTransformer (patch_embed.proj, blocks.0.attn.qkv, ...), so that public weights of the
same shape load without renaming.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 3  # maps that a transformer gives, evenly spread over its blocks; the last one is normalised


@dataclass(frozen=True)
class ViTPlan:
    """Width of the tokens, heads of each attention, blocks; `patch` pixels a token; `size` of the position grid."""

    dim: int
    heads: int
    depth: int = 12
    patch: int = 4
    size: int = 32


class PatchEmbed(nn.Module):
    """images [B, 3, H, W] -> map of patches [B, dim, H / patch, W / patch]."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention, x [B, N, dim] -> [B, N, dim]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        queries, keys, values = (
            self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers around a GELU, four times as wide between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """A backbone: images [B, 3, H, W] -> {"maps": LEVELS of [B, dim, h, w], "features": [B, dim] float32}.

    ViT (Dosovitskiy et al., ICLR 2021) with the widths of DeiT (Touvron et al., ICML 2021); features are the class
    token after the last norm. Pictures of another size than the plan's get interpolated positions.
    """

    def __init__(self, plan: ViTPlan, opts: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.opts = dict(opts or {})
        self.plan, self.dim = plan, plan.dim
        self.grid = plan.size // plan.patch
        self.patch_embed = PatchEmbed(plan.dim, plan.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, plan.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, plan.dim))
        self.blocks = nn.ModuleList(Block(plan.dim, plan.heads) for _ in range(plan.depth))
        self.norm = nn.LayerNorm(plan.dim, eps=1e-6)
        self.taps = tuple((level + 1) * plan.depth // LEVELS - 1 for level in range(LEVELS))
        self._initialise()

    def _initialise(self) -> None:
        """As DeiT: truncated normal of 0.02 for linear layers and tokens, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, images: Tensor) -> dict[str, Any]:
        patches = self.patch_embed(images)
        height, width = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2) + self._positions(height, width)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x, maps = torch.cat([first.to(x.dtype), x], dim=1), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                tokens = self.norm(x) if number == len(self.blocks) - 1 else x
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width)))
        return {"maps": maps, "features": self.norm(x)[:, 0].float()}

    def _positions(self, height: int, width: int) -> Tensor:
        """Positions of a grid of patches [1, height * width, dim]."""
        positions: Tensor = self.pos_embed[:, 1:]
        if (height, width) == (self.grid, self.grid):
            return positions
        square = positions.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        resized = functional.interpolate(square, (height, width), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)
