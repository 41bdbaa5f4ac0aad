"""Datasets: one LightningDataModule each, uint8 in memory, float in [-1, 1] on the device."""

from flowexp.data.base import ImageDataModule
from flowexp.data.digits import Digits
from flowexp.data.errors import DataError
from flowexp.data.fashion_mnist import FashionMNIST
from flowexp.data.images import ImageSet, to_float, to_uint8
from flowexp.data.loader import Batch, BatchLoader

__all__ = [
    "Batch",
    "BatchLoader",
    "DataError",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageSet",
    "to_float",
    "to_uint8",
]
