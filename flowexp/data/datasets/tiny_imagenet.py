"""Tiny-ImageNet: 110 000 colour pictures in 200 classes (CS231n, Stanford 2015)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from flowexp.data.base import ImageDataModule
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.crop import as_colour
from flowexp.data.sets.identity import identity_of_files
from flowexp.data.sets.images import ImageSet
from flowexp.data.storage.downloads import check_md5, download
from flowexp.data.storage.file_tree import FileTree, Folder, Zip
from flowexp.data.storage.image_cache import ImageCache, NoRoomError, Split
from flowexp.records.files import fingerprint

_WNIDS = "wnids.txt"
_ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet(ImageDataModule):
    """64 x 64 colour images in 200 classes, 100 000 to train on and the 10 000 of `val` held out.

    Read from the folder tiny-imagenet-200 or from the archive tiny-imagenet-200.zip in `root` (`root` may also be that
    folder), or downloaded into `root`. The archive is not unpacked: its JPEGs are decoded once, in half a minute, into
    1.4 GB in `root`/decoded, and the originals may then go. Classes are numbered in the sorted order of their WordNet
    ids. `val` is one flat folder, whose labels are in val_annotations.txt; `test` has no labels and is not used.
    """

    name = "tiny_imagenet"
    resolution = 64
    channels = 3
    num_classes = 200
    flips = True
    num_train = 100_000

    images_per_class: ClassVar[int] = 500
    num_test: ClassVar[int] = 10_000
    folder: ClassVar[str] = "tiny-imagenet-200"
    archive: ClassVar[str] = "tiny-imagenet-200.zip"
    archive_md5: ClassVar[str] = "90528d7ca1a48142e341f4ef8d21d0de"
    url: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

    def prepare_data(self) -> None:
        """Downloads the archive and decodes it, as far as that has not been done.

        Raises:
            DataError: there is no network, files are missing or damaged, or the decoded images cannot be written.
        """
        cache = self._cache(None)
        if self._files() is None and not cache.exists():
            download(self.url, self.root / self.archive, self.archive_md5)
        if not cache.exists():
            with suppress(NoRoomError):  # `load` does without
                self._decode()

    def load(self) -> tuple[ImageSet, ImageSet]:
        files = self._files()
        cache = self._cache(files)
        if not cache.exists():
            try:
                self._decode()
            except NoRoomError as error:
                return self._in_memory(error)
        return cache.read("train"), cache.read("test")

    def _in_memory(self, error: NoRoomError) -> tuple[ImageSet, ImageSet]:
        """All images decoded for this process alone, where they have no place on the disk."""
        warnings.warn(f"{error}; until then every start decodes them anew, and they stay in memory", stacklevel=2)
        train, test = (split.in_memory() for split in self._splits().values())
        return train, test

    def _files(self) -> FileTree | None:
        """The folder or the archive, the folder first."""
        for folder in (self.root / self.folder, self.root):
            if (folder / _WNIDS).is_file():
                return Folder(folder)
        if (self.root / self.archive).is_file():
            return Zip(self.root / self.archive, self.folder)
        return None

    def _cache(self, files: FileTree | None) -> ImageCache:
        return ImageCache(self.root / "decoded", None if files is None else self._origin(files))

    def _origin(self, files: FileTree) -> dict[str, Any]:
        """What the decoded images are known by; the same for the archive and for the folder that was unpacked of it."""
        texts = {name: fingerprint.of_content(files.read(name)) for name in (_WNIDS, _ANNOTATIONS)}
        names = [name for name, _ in self._train_names(files) + self._test_names(files)]
        numbers = {"train": self._num_train, "test": self.num_test}
        return {"dataset": self.name, "format": 2, **numbers, **texts, "files": identity_of_files(files, names)}

    @property
    def _num_train(self) -> int:
        return self.num_classes * self.images_per_class

    def _decode(self) -> None:
        splits = self._splits()
        self._cache(self._files()).build(splits)

    def _splits(self) -> dict[str, Split]:
        """Both splits, to be decoded.

        Raises:
            DataError: the files are missing or damaged.
        """
        files = self._files()
        if files is None:
            raise DataError(
                f"Tiny-ImageNet not found in {self.root} (looked for {self.folder} and {self.archive}): "
                f"put {self.archive} there, {INSTEAD}"
            )
        if isinstance(files, Zip):
            check_md5(files.path, self.archive_md5)
        return {
            "train": self._split(files, self._train_names(files)),
            "test": self._split(files, self._test_names(files)),
        }

    def _wnids(self, files: FileTree) -> list[str]:
        wnids = sorted(files.read(_WNIDS).decode().split())
        if len(set(wnids)) != self.num_classes:
            raise DataError(f"{_WNIDS} of Tiny-ImageNet must list {self.num_classes} classes, got {len(set(wnids))}")
        return wnids

    def _train_names(self, files: FileTree) -> list[tuple[str, int]]:
        """The file and the class of each training image."""
        numbers = range(self.images_per_class)
        return [
            (f"train/{wnid}/images/{wnid}_{number}.JPEG", label)
            for label, wnid in enumerate(self._wnids(files))
            for number in numbers
        ]

    def _test_names(self, files: FileTree) -> list[tuple[str, int]]:
        """The file and the class of each held-out image."""
        wnids = {wnid: label for label, wnid in enumerate(self._wnids(files))}
        rows = [line.split("\t") for line in files.read(_ANNOTATIONS).decode().splitlines() if line.strip()]
        if len(rows) != self.num_test or any(len(row) < 2 or row[1] not in wnids for row in rows):
            raise DataError(
                f"{_ANNOTATIONS} of Tiny-ImageNet must give each of {self.num_test} images a class of {_WNIDS}, "
                f"got {len(rows)} lines: replace it, {INSTEAD}"
            )
        return [(f"val/images/{row[0]}", wnids[row[1]]) for row in rows]

    def _split(self, files: FileTree, names: Sequence[tuple[str, int]]) -> Split:
        shape = (len(names), self.channels, self.resolution, self.resolution)
        labels = np.array([label for _, label in names], np.int64)
        return Split(shape, labels, self._images(files, [name for name, _ in names]))

    def _images(self, files: FileTree, names: Sequence[str]) -> Iterator[np.ndarray]:
        console = Console(stderr=True)
        for name in track(names, "decoding Tiny-ImageNet", console=console, disable=not console.is_terminal):
            yield _decode_image(files.read(name), self.resolution, name)


def _decode_image(jpeg: bytes, resolution: int, name: str) -> np.ndarray:
    """A JPEG as uint8 (3, H, W); the few grey ones become colour."""
    try:
        image = np.asarray(as_colour(Image.open(io.BytesIO(jpeg))))
    except Exception as error:  # a damaged picture can raise anything
        raise DataError(f"{name} of Tiny-ImageNet is damaged ({error}): replace it, {INSTEAD}") from error
    if image.shape != (resolution, resolution, 3):
        raise DataError(
            f"{name} of Tiny-ImageNet must be {resolution} x {resolution}, got {image.shape[:2]}: replace it"
        )
    return image.transpose(2, 0, 1)
