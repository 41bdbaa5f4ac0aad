"""How position, noise level and label become vectors (SiT's models.py, which takes all three from DiT)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flowexp.flow.choices import check_choice

Conditioning = Literal["adaln_zero", "none"]
CONDITIONINGS: tuple[Conditioning, ...] = get_args(Conditioning)


def sincos_1d(position: Tensor, dim: int) -> Tensor:
    """[sin | cos] of position (N,) at frequencies 10000^(-k / (dim / 2)): (N, dim)."""
    frequency = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angle = position[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_2d(side: int, dim: int) -> Tensor:
    """The fixed embedding (1, side^2, dim) of a square grid read row by row: the column's half, then the row's."""
    place = torch.arange(side, dtype=torch.float64)
    row, column = place.repeat_interleave(side), place.repeat(side)
    return torch.cat([sincos_1d(column, dim // 2), sincos_1d(row, dim // 2)], dim=1).float()[None]


def time_sinusoid(time: Tensor, dim: int = 256) -> Tensor:
    """[cos | sin] of time (B,) at frequencies 10000^(-k / (dim / 2)): (B, dim), in the type of `time`."""
    half = dim // 2
    frequency = torch.exp(torch.arange(half, device=time.device, dtype=time.dtype) * (-math.log(10000.0) / half))
    angle = time[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimestepEmbedder(nn.Module):
    """Noise level (B,) to a vector (B, D): a sinusoid of 256 dimensions, then an MLP.

    time_scale multiplies t first: 1 is SiT, which feeds t in [0, 1]; 1000 is DiT, which feeds steps 0..999.
    """

    def __init__(self, width: int, time_scale: float, dim: int = 256) -> None:
        super().__init__()
        self.time_scale = time_scale
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoid(self, t: Tensor) -> Tensor:
        """[cos | sin] of the scaled t at 128 frequencies from 1 to 1/10000, in float32, or float64 as the MLP is."""
        dtype = torch.promote_types(next(self.mlp.parameters()).dtype, torch.float32)
        return time_sinusoid(self.time_scale * t.to(dtype), self.dim)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.sinusoid(t).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """Label (B,) to a vector (B, D): a table whose last row, null_label, is "no class"."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.null_label = num_classes
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        return self.embedding_table(label)


def with_label(time: Tensor, label: Tensor | None, embedder: LabelEmbedder | None) -> Tensor:
    """The condition (B, D): t's vector plus the label's, or "no class" without a label; an embedder None ignores it."""
    if embedder is None:
        return time
    if label is None:
        label = torch.full(time.shape[:1], embedder.null_label, device=time.device)
    return time + embedder(label)


def check_conditioning(conditioning: str, num_classes: int | None) -> None:
    """Raises ValueError for an unknown conditioning, or for labels on a network that is conditioned on nothing."""
    check_choice("conditioning", conditioning, CONDITIONINGS)
    if conditioning == "none" and num_classes is not None:
        raise ValueError(f"conditioning='none' has no place for labels: pass num_classes=None, got {num_classes}")
