"""ImageNet: 1.28 million photographs in 1000 classes (ILSVRC 2012)."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from flowexp.data.base import ImageDataModule, check_positive
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.batch_rows import Images
from flowexp.data.sets.file_images import Decoder, FileImages
from flowexp.data.storage.image_cache import ImageCache, NoRoomError, Split

_ENDINGS = (".jpeg", ".jpg", ".png")
_DECODED_AT_ONCE = 256


class ImageNet(ImageDataModule):
    """Colour images in 1000 classes, those of `train` to train on and the 50 000 of `val` held out, cropped to squares.

    Read from `root`/train and `root`/val, each with one folder per class named by its WordNet id, whose sorted order
    numbers the classes. Nothing is downloaded: the files are given out at image-net.org after one has agreed to terms.
    Pictures are decoded two batches ahead; a small resolution can be decoded once instead.

    Arguments:
        resolution: side of the squares, cut as ADM does.
        num_workers: threads that decode.
        cache: decode all once into `root`/decoded_<resolution>, and map that from the disk.
        root, batch_size, train_size, flip, seed, on_device: see ImageDataModule; on_device needs `cache`.

    Raises:
        ValueError: a number that is not positive, or on_device without `cache`.
    """

    name = "imagenet"
    channels = 3
    num_classes = 1000
    flips = True
    num_train = 1_281_167

    classes_at: ClassVar[str] = "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh"

    def __init__(
        self,
        root: str | Path | None = None,
        resolution: int = 256,
        batch_size: int = 256,
        train_size: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
        num_workers: int = 8,
        cache: bool = False,
        on_device: bool = False,
    ) -> None:
        super().__init__(root, batch_size, train_size, flip, seed, on_device)
        check_positive(resolution=resolution, num_workers=num_workers)
        if on_device and not cache:
            raise ValueError("data.on_device=true needs decoded images: set data.cache=true as well")
        self.resolution = resolution
        self.num_workers = num_workers
        self.cache = cache

    def load(self) -> tuple[Images, Images]:
        classes = self._classes("train"), self._classes("val")
        if list(classes[0]) != list(classes[1]):
            raise DataError(f"{self.root} must have the same class folders in train and val: put both there whole")
        train, test = self._split("train", classes[0]), self._split("val", classes[1])
        return self._decoded(self.limited(train), test) if self.cache else (train, test)

    def _split(self, split: str, found: dict[str, list[str]]) -> FileImages:
        names = [f"{split}/{wnid}/{name}" for wnid, files in found.items() for name in files]
        labels = torch.tensor([label for label, files in enumerate(found.values()) for _ in files])
        return FileImages(Decoder(self.root, self.resolution, self.num_workers), names, labels)

    def _classes(self, split: str) -> dict[str, list[str]]:
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(
                f"ImageNet not found in {self.root} (looked for {split}): put its train and val there, each with a "
                f"folder per class such as train/n01440764, {INSTEAD}"
            )
        found = _classes_in(folder)
        if not found and any(folder.glob("*.JPEG")):
            raise DataError(
                f"{folder} is flat, without its classes: move each image into the folder of its class, as the script "
                f"{self.classes_at} does when it is run in {folder}"
            )
        if len(found) != self.num_classes or not all(found.values()):
            raise DataError(
                f"{folder} must have {self.num_classes} class folders such as n01440764, none of them empty, got "
                f"{sum(map(bool, found.values()))}: put the whole dataset there, {INSTEAD}"
            )
        return found

    def _decoded(self, train: FileImages, test: FileImages) -> tuple[Images, Images]:
        name = f"decoded_{self.resolution}" + ("" if self.train_size is None else f"_{self.train_size}")
        cache = ImageCache(self.root / name, self._origin(train, test))
        if not cache.exists():
            print(f"decoding ImageNet once into {cache.folder}: {train.gigabytes + test.gigabytes:.1f} GB", flush=True)
            try:
                cache.build({"train": _to_write(train), "test": _to_write(test)})
            except NoRoomError as error:
                return self._undecoded(train, test, error)
        return replace(cache.read("train"), source=train), replace(cache.read("test"), source=test)

    def _undecoded(self, train: FileImages, test: FileImages, error: NoRoomError) -> tuple[Images, Images]:
        """The files themselves, where decoded images have no place and nothing needs them in memory."""
        if self.on_device:
            raise error
        warnings.warn(f"{error}; until then every batch is decoded when its turn comes", stacklevel=2)
        return train, test

    def _origin(self, train: FileImages, test: FileImages) -> dict[str, Any]:
        return {"dataset": self.name, "format": 1, "train": train.fingerprint, "test": test.fingerprint}


def _classes_in(folder: Path) -> dict[str, list[str]]:
    """The sorted image files of every class folder, by its WordNet id."""
    wnids = sorted(path.name for path in folder.iterdir() if re.fullmatch(r"n\d{8}", path.name) and path.is_dir())
    return {wnid: [name for name in sorted(os.listdir(folder / wnid)) if _is_image(name)] for wnid in wnids}


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def _to_write(images: FileImages) -> Split:
    side = images.decoder.resolution
    return Split((len(images), 3, side, side), images.labels.numpy(), _decode(images))


def _decode(images: FileImages) -> Iterator[np.ndarray]:
    console = Console(stderr=True)
    parts = torch.arange(len(images)).split(_DECODED_AT_ONCE)
    for rows in track(parts, "decoding ImageNet", console=console, disable=not console.is_terminal):
        yield from images.select(rows).images.numpy()
