"""Transformer blocks and heads: timm's attention and MLP between our modulation (DiT's adaLN-zero), or without it."""

from __future__ import annotations

from functools import partial

import torch.nn as nn
from timm.layers import Attention, Mlp
from torch import Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for x (B, N, D) and one shift and scale (B, D) per sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


def modulation(width: int, parts: int) -> nn.Sequential:
    """The map from a condition (B, D) to `parts` vectors of width D, side by side."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm without weights, as SiT uses everywhere."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class PlainBlock(nn.Module):
    """A pre-norm transformer block that takes no condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=partial(nn.GELU, approximate="tanh"))

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class AdaLNZeroBlock(PlainBlock):
    """The same block with each branch shifted, scaled and gated by the condition; the identity at initialisation."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        tokens = tokens + gate1[:, None] * self.attn(modulate(self.norm1(tokens), shift1, scale1))
        return tokens + gate2[:, None] * self.mlp(modulate(self.norm2(tokens), shift2, scale2))


class PlainHead(nn.Module):
    """LayerNorm and a Linear to one patch of pixels per token: (B, N, D) to (B, N, outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(width)
        self.linear = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.linear(self.norm_final(tokens))


class AdaLNHead(PlainHead):
    """The same head, shifted and scaled by the condition."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(tokens), shift, scale))
