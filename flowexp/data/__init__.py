"""Datasets: one LightningDataModule each, uint8 in memory, float in [-1, 1] on the device."""

from flowexp.data.base import ImageDataModule
from flowexp.data.cifar10 import CIFAR10
from flowexp.data.digits import Digits
from flowexp.data.errors import DataError
from flowexp.data.fashion_mnist import FashionMNIST
from flowexp.data.images import ImageSet, to_float, to_uint8
from flowexp.data.loader import Batch, BatchLoader
from flowexp.data.tiny_imagenet import TinyImageNet

__all__ = [
    "CIFAR10",
    "Batch",
    "BatchLoader",
    "DataError",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageSet",
    "TinyImageNet",
    "to_float",
    "to_uint8",
]
