"""A dataset in one file: rings of four radii, drawn and not downloaded."""

from __future__ import annotations

import torch
from torch import Tensor

from flowexp.data import ImageDataModule, ImageSet


class Rings(ImageDataModule):
    """16 x 16 grey pictures of a ring around a random place; its radius, 2 to 5 pixels, is the class."""

    name = "rings"
    resolution = 16
    channels = 1
    num_classes = 4
    flips = True

    def load(self) -> tuple[ImageSet, ImageSet]:
        return draw_rings(4096, seed=0), draw_rings(512, seed=1)


def draw_rings(num: int, seed: int) -> ImageSet:
    """`num` rings with their classes."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (num,), generator=generator)
    row, column = (torch.rand(2, num, 1, 1, generator=generator) * 4 + 6).unbind()
    pixel = torch.arange(16.0)
    distance: Tensor = ((pixel[:, None] - row) ** 2 + (pixel - column) ** 2).sqrt()
    ring = torch.exp(-((distance - 2 - label[:, None, None]) ** 2))
    return ImageSet((255 * ring).to(torch.uint8)[:, None], label)
