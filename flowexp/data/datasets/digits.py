"""The 1797 handwritten digits that come with scikit-learn: real images with nothing to download."""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.errors import DataError
from flowexp.data.sets.images import ImageSet
from flowexp.flow.randomness import keyed_generator

_SPLIT = 0xD161  # the key of the one split that everybody uses


class Digits(ImageDataModule):
    """8 x 8 grey digits of UCI's optical recognition test set, 1437 to train on and 360 held out.

    The source has no split. Ours is fixed: rows are permuted, sorted by class, and every fifth is held out,
    so that both parts have all classes in equal shares. `root` is not used.
    """

    name = "digits"
    resolution = 8
    channels = 1
    num_classes = 10
    class_names = ("a zero", "a one", "a two", "a three", "a four", "a five", "a six", "a seven", "an eight", "a nine")

    def load(self) -> tuple[ImageSet, ImageSet]:
        everything = _read_digits()
        train, test = _split(everything.labels)
        return everything.select(train), everything.select(test)


@cache
def _read_digits() -> ImageSet:
    pixels, labels = read_table()
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def read_table() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64) in 0..16 and labels (N,), from scikit-learn's file: importing the package takes three seconds."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("data=digits reads scikit-learn's images, which is not installed: pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():  # a release that keeps it elsewhere
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1]


def _split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows held out, both in random order."""
    order = torch.randperm(len(labels), generator=keyed_generator(_SPLIT))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[labels[order].argsort(stable=True)[::5]] = True
    return order[~held_out], order[held_out]
