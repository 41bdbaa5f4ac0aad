"""SiT's network and training step by its paper's description, on timm's parts: what people would use instead."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from torch import Tensor, nn


class Block(nn.Module):
    """A transformer block whose branches are shifted, scaled and gated by the condition (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.attn = Attention(width, heads, qkv_bias=True)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate="tanh"))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class SiT(nn.Module):
    """The velocity network: patches, sinusoidal t, a class, `depth` blocks and a head of 2 C channels."""

    def __init__(self, resolution: int, channels: int, depth: int, width: int, heads: int, patch: int = 2) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.patches = PatchEmbed(resolution, patch, channels, width)
        self.positions = nn.Parameter(torch.zeros(1, (resolution // patch) ** 2, width), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(1001, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, patch**2 * 2 * channels)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The velocity (B, C, H, W)."""
        frequency = torch.exp(-math.log(10_000) * torch.arange(128, device=x.device) / 128)
        angle = t[:, None] * frequency
        condition = self.time(torch.cat([angle.cos(), angle.sin()], dim=1)) + self.classes(label)
        tokens = self.patches(x) + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        patches = self.linear(self.norm(tokens) * (1 + scale) + shift)
        side = x.shape[2] // self.patch
        pictures = patches.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (side, side))
        return torch.einsum("nhwpqc->nchpwq", pictures).reshape(len(x), -1, *x.shape[2:])[:, : self.channels]


class SiTTraining:
    """A training step as SiT's script takes it: fp32, AdamW without decay or clipping, an EMA tensor by tensor."""

    def __init__(self, network: SiT) -> None:
        self.network, self.average = network, deepcopy(network)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0)

    def step(self, data: Tensor, label: Tensor) -> None:
        """One step on data (B, C, H, W) and classes (B,), of which a tenth is hidden."""
        t, noise = torch.rand(len(data), device=data.device), torch.randn_like(data)
        hidden = torch.rand(len(label), device=label.device) < 0.1
        mixing = t[:, None, None, None]
        velocity = self.network((1 - mixing) * data + mixing * noise, t, torch.where(hidden, 1000, label))
        loss = (velocity - (noise - data)).square().flatten(1).mean(1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        for average, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.mul_(0.9999).add_(parameter, alpha=1e-4)
