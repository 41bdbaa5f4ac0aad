"""A dataset as a network that was trained on another one can see it: resized, in as many channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.pick import Images

GREY, COLOUR = 1, 3


class FittedImages(ImageDataModule):
    """The images of `source` as data of another resolution and number of channels; its labels stay.

    Resized bilinearly with antialiasing; grey becomes three equal channels, colour its mean.

    Arguments:
        source: a dataset of pictures, set up.
        channels, resolution: those of the network.

    Raises:
        ValueError: channels that are neither grey nor colour, as those of latents.
    """

    def __init__(self, source: ImageDataModule, channels: int, resolution: int) -> None:
        super().__init__(source.root, source.batch_size, source.train_size, source.flip)
        if channels != source.channels and {channels, source.channels} != {GREY, COLOUR}:
            raise ValueError(
                f"{source.name} has {source.channels} channels and the network takes {channels}: latents and pictures "
                "do not become each other here; encode the dataset with flowexp.encode"
            )
        self.source = source
        self.name = f"{source.name} as {channels} x {resolution} x {resolution}"
        self.channels, self.resolution, self.num_classes = channels, resolution, source.num_classes

    def load(self) -> tuple[Images, Images]:
        return self.source.train, self.source.test

    def to_data(self, images: Tensor) -> Tensor:
        data = self.source.to_data(images)
        if data.shape[1] == COLOUR and self.channels == GREY:
            data = data.mean(dim=1, keepdim=True)
        size = (self.resolution, self.resolution)
        if data.shape[2:] != size:
            data = F.interpolate(data, size, mode="bilinear", align_corners=False, antialias=True)
        return data.expand(-1, self.channels, -1, -1)


def fitted(source: ImageDataModule, channels: int, resolution: int) -> ImageDataModule:
    """`source` itself where it has this shape already, else as `FittedImages`."""
    if (source.channels, source.resolution) == (channels, resolution):
        return source
    found = FittedImages(source, channels, resolution)
    found.setup()
    return found
