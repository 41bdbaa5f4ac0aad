"""Datasets: one LightningDataModule each; pixels are stored as uint8 and become float in [-1, 1] on the device."""

from flowexp.data.base import ImageDataModule
from flowexp.data.captioned import Captioned
from flowexp.data.datasets.cifar10 import CIFAR10
from flowexp.data.datasets.class_captions import ClassCaptions
from flowexp.data.datasets.coco import COCO
from flowexp.data.datasets.digits import Digits
from flowexp.data.datasets.emoji import Emoji
from flowexp.data.datasets.fashion_mnist import FashionMNIST
from flowexp.data.datasets.hub import HubDataset
from flowexp.data.datasets.imagenet import ImageNet
from flowexp.data.datasets.latents import Latents, TextLatents
from flowexp.data.datasets.picture_folder import PictureFolder
from flowexp.data.datasets.tiny_imagenet import TinyImageNet
from flowexp.data.errors import DataError
from flowexp.data.loader import BatchLoader
from flowexp.data.sets.batch_rows import Batch, Images, Pick
from flowexp.data.sets.captions import CaptionedSet
from flowexp.data.sets.images import ImageSet, to_float, to_uint8
from flowexp.data.storage.latent_cache import LatentCache, Manifest, Shard

__all__ = [
    "CIFAR10",
    "COCO",
    "Batch",
    "BatchLoader",
    "Captioned",
    "CaptionedSet",
    "ClassCaptions",
    "DataError",
    "Digits",
    "Emoji",
    "FashionMNIST",
    "HubDataset",
    "ImageDataModule",
    "ImageNet",
    "ImageSet",
    "Images",
    "LatentCache",
    "Latents",
    "Manifest",
    "Pick",
    "PictureFolder",
    "Shard",
    "TextLatents",
    "TinyImageNet",
    "to_float",
    "to_uint8",
]
