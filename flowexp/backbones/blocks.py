"""Transformer blocks and heads: attention and MLP between a modulation (DiT's adaLN-zero), or without it.

Layers and their names in the state dict are those of timm, from which DiT and SiT take them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for x (B, N, D) and one shift and scale (B, D) per sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


def modulation(width: int, parts: int) -> nn.Sequential:
    """The map from a condition (B, D) to `parts` vectors of width D, side by side."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm without weights, as SiT uses everywhere."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The square picture (B, C, H, W) of patches (B, N, patch patch C), read row by row; C varies fastest."""
    side = math.isqrt(patches.shape[1])
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=patch, q=patch)


@torch.no_grad()
def draw_as_pytorch(network: nn.Module) -> None:
    """Draw every weight anew from the law that PyTorch gives its layer (LeCun-uniform for Linear and convolutions)."""
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


class PatchEmbed(nn.Module):
    """Pictures (B, C, H, W) to one token per square patch, row by row: (B, N, width)."""

    def __init__(self, resolution: int, patch: int, channels: int, width: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.resolution, self.resolution):
            raise ValueError(f"pictures must have {self.resolution} x {self.resolution} pixels, got {tuple(x.shape)}")
        return self.proj(x).flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Linear, tanh-GELU, Linear: (B, N, D) to (B, N, D) by way of `hidden` features."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(tanh_gelu(self.fc1(x)))


def tanh_gelu(x: Tensor) -> Tensor:
    """x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), as DiT and SiT take it; x of any shape.

    Compiled it is x sigmoid(2u), the same function: for a sigmoid the compiler has the exponential of the processor's
    vectors, and takes 0.44 times as long as for a tanh. Written out and not compiled it would be rounded in bf16 after
    each product.
    """
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


class SelfAttention(nn.Module):
    """Attention of tokens (B, N, D) to each other in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        return self.proj(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q, k, v (B, heads, N, d), by the kernel that is fastest where they are."""
    return _attend_by_matmul(q, k, v) if _matmul_is_faster(q) else F.scaled_dot_product_attention(q, k, v)


def _matmul_is_faster(q: Tensor) -> bool:
    # On CPUs in bf16 the fused kernel's backward pass costs 2 to 4 times two batched products (49 to 256 tokens); in
    # float32 it does not, and beyond 256 tokens the products' N x N matrices fill the memory.
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= 256


def _attend_by_matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return weights.softmax(dim=-1) @ v


class PlainBlock(nn.Module):
    """A pre-norm transformer block that takes no condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

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


def check_sizes(resolution: int, patch: int, width: int, heads: int) -> None:
    """Raises ValueError where a transformer cannot have them."""
    if resolution % patch:
        raise ValueError(f"resolution must be a multiple of the patch size {patch}, got {resolution}")
    if width % heads or width % 4:
        raise ValueError(f"width must be a multiple of 4 and of the {heads} heads, got {width}")
