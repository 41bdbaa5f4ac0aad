"""Datasets: one LightningDataModule each; pixels are stored as uint8 and become float in [-1, 1] on the device."""

from flowexp.data.base import ImageDataModule
from flowexp.data.captions import CaptionedSet
from flowexp.data.cifar10 import CIFAR10
from flowexp.data.class_captions import ClassCaptions
from flowexp.data.coco import COCO
from flowexp.data.digits import Digits
from flowexp.data.errors import DataError
from flowexp.data.fashion_mnist import FashionMNIST
from flowexp.data.imagenet import ImageNet
from flowexp.data.images import ImageSet, to_float, to_uint8
from flowexp.data.latent_cache import LatentCache, Manifest, Shard
from flowexp.data.latents import Latents, TextLatents
from flowexp.data.loader import BatchLoader
from flowexp.data.pick import Batch, Images, Pick
from flowexp.data.tiny_imagenet import TinyImageNet

__all__ = [
    "CIFAR10",
    "COCO",
    "Batch",
    "BatchLoader",
    "CaptionedSet",
    "ClassCaptions",
    "DataError",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageNet",
    "ImageSet",
    "Images",
    "LatentCache",
    "Latents",
    "Manifest",
    "Pick",
    "Shard",
    "TextLatents",
    "TinyImageNet",
    "to_float",
    "to_uint8",
]
