"""Frozen networks whose patch tokens another network is aligned with, by name (REPA's teachers)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.flow.choices import chosen
from flowexp.integrations.encoders import dinov2
from flowexp.integrations.encoders.base import as_rgb
from flowexp.integrations.encoders.efficientnet_lite import load_lite0


class Teacher(nn.Module, ABC):
    """A frozen network with a `name` and `dim`, the length of its tokens.

    A subclass gives `read` and `protocol`. The caller chooses the grid: pictures are resized so that the network's own
    patches fall on it, so that small pictures have as many tokens as the network that is trained on them.
    """

    name: str
    dim: int

    @abstractmethod
    def read(self, images: Tensor, side: int) -> Tensor:
        """Tokens (B, side^2, dim) of colour pictures, uint8 (B, 3, H, W), row by row."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything but the grid that decides the tokens of a picture: weights, resizing, normalisation."""

    def tokens(self, images: Tensor, side: int) -> Tensor:
        """Tokens (B, side^2, dim) float32 of pictures, uint8 (B, C, H, W) with C = 1 (grey, repeated) or 3.

        Raises:
            ValueError: another dtype or shape.
        """
        rgb = as_rgb(images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.read(rgb, side)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode for any `mode`."""
        return super().train(False)


class DINOv2Teacher(Teacher):
    """The patch tokens behind the last normalisation of DINOv2 ViT-B/14, as in REPA.

    Pictures are resized, bicubic without antialiasing, to 14 pixels per patch: at REPA's grids of 16 and 32 this is
    its 224 * (resolution // 256).

    Arguments:
        weights: a file of weights; None is the one in the cache of the Hugging Face hub, fetched at need.
    """

    name = "dinov2_vitb14"
    dim = 768

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.network, self.weights = dinov2.load_dinov2(weights)
        self.preprocess = dinov2.Preprocess(antialias=False)
        self.requires_grad_(False).eval()

    def read(self, images: Tensor, side: int) -> Tensor:
        pixels = self.preprocess(images, dinov2.PATCH * side)
        return self.network.forward_features(pixels)[:, 1:]  # type: ignore[operator]

    def protocol(self) -> dict[str, Any]:
        return {"teacher": self.name, "weights_sha256": self.weights, "resize": "bicubic, not antialiased"}


class EfficientNetLiteTeacher(Teacher):
    """The map of EfficientNet-Lite0 (ImageNet) at a sixteenth of the picture: a teacher that needs no download.

    Pictures are resized, bilinear with antialiasing, to 16 pixels per token: a grid of 14, of 28 x 28 pixels in
    patches of 2, is read from 224 pixels, as in its training; a grid of 7 from 112. The 112 channels are those of the
    fifth stage, the last at this stride.
    """

    name = "efficientnet_lite"
    dim = 112
    stride = 16
    stages = 5

    def __init__(self) -> None:
        super().__init__()
        network, self.weights = load_lite0()
        self.network = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[: self.stages])  # type: ignore[index, arg-type]
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def read(self, images: Tensor, side: int) -> Tensor:
        size = (self.stride * side, self.stride * side)
        pixels = F.interpolate(images.float(), size, mode="bilinear", antialias=True).div_(127.5).sub_(1)
        return self.network(pixels.contiguous(memory_format=torch.channels_last)).flatten(2).mT.contiguous()

    def protocol(self) -> dict[str, Any]:
        return {"teacher": self.name, "weights_sha256": self.weights, "resize": "bilinear, antialiased, stage 5"}


TEACHERS: dict[str, type[Teacher]] = {net.name: net for net in (DINOv2Teacher, EfficientNetLiteTeacher)}


def create_teacher(name: str, **options: Any) -> Teacher:
    """The teacher called `name`, loaded and frozen; `options` go to its class.

    Raises:
        ValueError: there is no such name, or its weights cannot be had.
    """
    return chosen("a teacher", name, TEACHERS)(**options)
