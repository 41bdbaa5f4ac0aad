"""What every feature network offers: pictures in, vectors out, and a record of how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn


class FeatureNet(nn.Module, ABC):
    """A frozen network with a `name` and `dim`, the length of its feature vectors.

    A subclass gives `features` and `protocol`, and ends its __init__ with `freeze`.
    """

    name: str
    dim: int

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (B, dim) of colour pictures, uint8 (B, 3, H, W)."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything that decides the features of a picture: weights, resizing, normalisation."""

    @property
    def distance_name(self) -> str:
        """The key of a Frechet distance between these features. Only that of Inception's may be called FID."""
        return f"frechet/{self.name}"

    def freeze(self) -> None:
        """Takes the weights out of training and puts them in the layout that convolutions are fastest in."""
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever is asked: its batch statistics are part of the measure."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, dim) float32 of pictures, uint8 (B, C, H, W) with C = 1 (grey, repeated) or 3.

        Raises:
            ValueError: another dtype or shape. Floats are refused, since their range could only be guessed.
        """
        rgb = _as_rgb(images)
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
            features = self.features(rgb)
        return features.clone()  # an ordinary tensor, which a classifier can be trained on


def _as_rgb(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"an encoder needs uint8 pictures of shape (B, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}: "
            "convert samples with flowexp.data.to_uint8"
        )
    return images.expand(-1, 3, -1, -1)
