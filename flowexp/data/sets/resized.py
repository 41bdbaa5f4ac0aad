"""A dataset as a network that was trained on another one can see it: resized, in as many channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.sets.batch_rows import Batch, Images, Pick
from flowexp.records.files import fingerprint

GREY, COLOUR = 1, 3


@dataclass(frozen=True, eq=False)
class FittedSet:
    """The pictures of `source` in another shape, resized on access. Meets `flowexp.data.Images`."""

    source: Images
    channels: int
    resolution: int

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Tensor:
        return self.source.labels

    @property
    def fingerprint(self) -> str | None:
        """Of the source and the shape, where the source is known without its pixels."""
        known = self.source.fingerprint
        return None if known is None else fingerprint.of_content(f"{known} as {self.channels} x {self.resolution}")

    @property
    def prefetch(self) -> int:
        return self.source.prefetch

    @property
    def device(self) -> torch.device:
        return self.source.device

    @property
    def images(self) -> Tensor:
        return fit(self.source.images, self.channels, self.resolution)

    def select(self, rows: Tensor) -> FittedSet:
        return replace(self, source=self.source.select(rows))

    def subset(self, num: int) -> FittedSet:
        return replace(self, source=self.source.subset(num))

    def to(self, device: torch.device | str) -> FittedSet:
        return replace(self, source=self.source.to(device))

    def batch(self, pick: Pick) -> Batch:
        found = self.source.batch(pick)
        return {**found, "image": fit(found["image"], self.channels, self.resolution)}


def fit(pictures: Tensor, channels: int, resolution: int) -> Tensor:
    """Pictures uint8 (B, C, H, W) as (B, channels, resolution, resolution): bilinear, antialiased, rounded.

    Grey becomes three equal channels, colour its mean.
    """
    values = pictures.float()
    if len(values[0]) > channels:
        values = values.mean(dim=1, keepdim=True)
    if values.shape[2:] != (resolution, resolution):
        values = F.interpolate(values, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True)
    return values.round_().clamp_(0, 255).to(torch.uint8).expand(-1, channels, -1, -1)


class FittedImages(ImageDataModule):
    """A dataset of pictures in another resolution and number of channels, see `fit`; its labels stay.

    Arguments:
        source: the dataset, set up.
        channels, resolution: those of the network.

    Raises:
        ValueError: channels that are neither grey nor colour, as those of latents.
    """

    def __init__(self, source: ImageDataModule, channels: int, resolution: int) -> None:
        super().__init__(source.root, source.batch_size, source.train_size, source.flip)
        if not {channels, source.channels} <= {GREY, COLOUR}:
            raise ValueError(
                f"{source.name} has {source.channels} channels and the network takes {channels}: latents and pictures "
                "do not become each other here; encode the dataset with flowexp.encode"
            )
        self.source = source
        self.name = f"{source.name} as {channels} x {resolution} x {resolution}"
        self.channels, self.resolution, self.num_classes = channels, resolution, source.num_classes

    def load(self) -> tuple[Images, Images]:
        train, test = (
            FittedSet(part, self.channels, self.resolution) for part in (self.source.train, self.source.test)
        )
        return train, test


def fitted(source: ImageDataModule, channels: int, resolution: int) -> ImageDataModule:
    """`source` itself where it has this shape already, else as `FittedImages`."""
    if (source.channels, source.resolution) == (channels, resolution):
        return source
    found = FittedImages(source, channels, resolution)
    found.setup()
    return found
