"""Decoded images on disk, in a form that is mapped into memory instead of read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from flowexp.data.errors import DataError
from flowexp.data.images import ImageSet
from flowexp.data.npy_files import write_npy

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Split:
    """One part of a dataset, about to be decoded.

    Arguments:
        shape: (N, C, H, W).
        labels: int64 (N,).
        images: the N images, uint8 (C, H, W), in order.
    """

    shape: tuple[int, int, int, int]
    labels: np.ndarray
    images: Iterable[np.ndarray]


@dataclass(frozen=True)
class ImageCache:
    """A folder with <split>_images.npy, <split>_labels.npy and a manifest of what they were made from.

    The folder appears under its name only when it is complete: it is filled under another one beside it.

    Arguments:
        folder: where.
        origin: what identifies the images, as JSON values; a cache made from anything else is refused. None if the
            images themselves are gone.
    """

    folder: Path
    origin: dict[str, Any] | None

    def exists(self) -> bool:
        """Whether there is a cache, of these or other images."""
        return self.folder.exists()

    def build(self, splits: dict[str, Split]) -> None:
        """Decodes everything into the folder, unless another process did so meanwhile.

        Raises:
            DataError: the place cannot be written, or is full.
        """
        try:
            with FileLock(f"{self.folder}.lock"):
                if not self.exists():
                    self._fill(Path(f"{self.folder}.partial"), splits)
        except OSError as error:
            raise DataError(
                f"the decoded images could not be written to {self.folder} ({error}): make room there, or let "
                "data.root be a folder of your own with a link to the dataset"
            ) from error

    def _fill(self, partial: Path, splits: dict[str, Split]) -> None:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            partial.mkdir()
            for name, split in splits.items():
                write_npy(partial / f"{name}_images.npy", split.shape, np.uint8, split.images)
                np.save(partial / f"{name}_labels.npy", split.labels)
            sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
            (partial / _MANIFEST).write_text(json.dumps({"origin": self.origin, "bytes": sizes}, indent=1))
            _flush(partial)
            os.replace(partial, self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def read(self, split: str) -> ImageSet:
        """The images, mapped into memory, and the labels of a split.

        Raises:
            DataError: the cache is damaged, or was made from other images.
        """
        self._check()
        # Mode c: changes would stay in memory. torch warns of arrays that it may not write.
        images = np.load(self.folder / f"{split}_images.npy", mmap_mode="c")
        return ImageSet(torch.from_numpy(images), torch.from_numpy(np.load(self.folder / f"{split}_labels.npy")))

    def _check(self) -> None:
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text())
            origin, sizes = manifest["origin"], manifest["bytes"]
            damaged = [name for name, size in sizes.items() if (self.folder / name).stat().st_size != size]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.folder} is damaged ({error}): delete it to have it made anew") from error
        if damaged:
            raise DataError(f"{self.folder} is damaged ({', '.join(damaged)}): delete it to have it made anew")
        if self.origin not in (None, origin):
            raise DataError(f"{self.folder} was made from other images: delete it to have it made anew")


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
