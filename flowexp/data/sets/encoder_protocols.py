"""What data needs of the frozen networks that encode it, which a config hands in: `flowexp.integrations.encoders`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Autoencoder(Protocol):
    """Pictures to the posterior of latents and back, see `VAE`. Weights are read when first used."""

    name: str
    scale: float

    @property
    def fingerprint(self) -> str:
        """Of the weights."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation (B, c, h, w) of the latents of float pictures (B, 3, H, W) in [-1, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Float pictures (B, 3, H, W) in [-1, 1] of unscaled latents (B, c, h, w)."""


class CaptionEncoder(Protocol):
    """Captions to sequences of vectors, see `TextEncoder`. Weights are read when first used."""

    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D) of an embedded caption."""

    @property
    def fingerprint(self) -> str:
        """Of the weights."""

    def encode(self, captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """The embeddings (B, L, D), float32."""
