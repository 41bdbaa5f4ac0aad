"""Real images of any size without a download: the digits, enlarged."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.sizes import Size
from flowexp.data import Digits, ImageDataModule, Images, ImageSet


def enlarged_digits(size: Size) -> ImageDataModule:
    """The digits at `size.resolution` with `size.channels` equal channels, repeated to `size.num_images`."""

    class EnlargedDigits(ImageDataModule):
        name = "enlarged_digits"
        resolution = size.resolution
        channels = size.channels
        num_classes = Digits.num_classes
        flips = True

        def load(self) -> tuple[ImageSet, ImageSet]:
            train, test = Digits().load()
            rows = torch.arange(size.num_images) % len(train)
            return _enlarge(train.select(rows), size), _enlarge(test, size)

    datamodule = EnlargedDigits(batch_size=size.batch_size, on_device=size.device.type != "cpu")
    datamodule.setup()
    return datamodule


def one_batch(size: Size) -> Images:
    """`size.batch_size` training images on the device."""
    return enlarged_digits(replace(size, num_images=size.batch_size)).train.to(size.device)


def _enlarge(digits: ImageSet, size: Size) -> ImageSet:
    factor = size.resolution // Digits.resolution
    assert factor * Digits.resolution == size.resolution, "the digits are enlarged by a whole number"
    images = digits.images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return ImageSet(images.repeat(1, size.channels, 1, 1), digits.labels)
