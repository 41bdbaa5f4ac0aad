"""Decoded images on disk, in a form that is mapped into memory instead of read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from flowexp.data.errors import DataError
from flowexp.data.sets.images import ImageSet
from flowexp.records.files import atomic, fingerprint
from flowexp.records.files.npy import write_npy

_MANIFEST = "manifest.json"
_CHECKED = "checked.json"  # the state of the files when they were last compared with their digests


class NoRoomError(DataError):
    """The place of a cache is full, or may not be written; what is to be cached may be used without it."""


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

    def in_memory(self) -> ImageSet:
        """Decodes them now."""
        images = np.empty(self.shape, np.uint8)
        for row, image in enumerate(self.images):
            images[row] = image
        return ImageSet(torch.from_numpy(images), torch.from_numpy(self.labels))


@dataclass(frozen=True)
class ImageCache:
    """A folder with <split>_images.npy, <split>_labels.npy and a manifest of what they were made from.

    The folder appears under its name only when it is complete: it is filled under another one beside it. Its files are
    read through once for their digests, and again where a file was touched since.

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
            NoRoomError: the place cannot be written, or is full.
            DataError: an image is damaged.
        """
        try:
            with FileLock(f"{self.folder}.lock"):
                if not self.exists():
                    atomic.remove_leftovers(self.folder)
                    with atomic.replacing(self.folder) as partial:
                        self._fill(partial, splits)
        except OSError as error:
            raise NoRoomError(
                f"the decoded images could not be written to {self.folder} ({error}): make room there, or let "
                "data.root be a folder of your own with a link to the dataset"
            ) from error

    def _fill(self, partial: Path, splits: dict[str, Split]) -> None:
        partial.mkdir()
        digests: dict[str, str] = {}
        for name, split in splits.items():
            images, labels = partial / f"{name}_images.npy", partial / f"{name}_labels.npy"
            digests[images.name] = write_npy(images, split.shape, np.uint8, split.images)
            digests[labels.name] = write_npy(labels, split.labels.shape, np.int64, [split.labels])
        sizes = {name: (partial / name).stat().st_size for name in digests}
        manifest = {"origin": self.origin, "bytes": sizes, "digests": digests}
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        (partial / _CHECKED).write_text(json.dumps(_stamps(partial, digests)))

    def read(self, split: str) -> ImageSet:
        """The images, mapped into memory, and the labels of a split.

        Raises:
            DataError: the cache is damaged, or was made from other images.
        """
        try:
            self._check()
            # Mode c: changes would stay in memory. torch warns of arrays that it may not write.
            images = np.load(self.folder / f"{split}_images.npy", mmap_mode="c")
            return ImageSet(torch.from_numpy(images), torch.from_numpy(np.load(self.folder / f"{split}_labels.npy")))
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise DataError(f"{self.folder} is damaged ({error}): delete it to have it made anew") from error

    def _check(self) -> None:
        manifest = json.loads((self.folder / _MANIFEST).read_text())
        origin, sizes = manifest["origin"], manifest["bytes"]
        if self.origin not in (None, origin):
            raise DataError(f"{self.folder} was made from other images: delete it to have it made anew")
        damaged = [name for name, size in sizes.items() if (self.folder / name).stat().st_size != size]
        if damaged := damaged or self._changed(manifest.get("digests", {})):
            raise DataError(f"{self.folder} is damaged ({', '.join(damaged)}): delete it to have it made anew")

    def _changed(self, digests: dict[str, str]) -> list[str]:
        """The files that are not what was written. They are read, unless they were before and not touched since."""
        stamps, checked = _stamps(self.folder, digests), self.folder / _CHECKED
        with suppress(OSError, ValueError):
            if json.loads(checked.read_text()) == stamps:
                return []
        changed = [name for name, digest in digests.items() if fingerprint.of_file(self.folder / name) != digest]
        if not changed:
            with suppress(OSError):  # a folder that may only be read is read through each time
                atomic.write_text(checked, json.dumps(stamps))
        return changed


def _stamps(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """What changes with a file, by its metadata alone."""
    states = {name: (folder / name).stat() for name in sorted(names)}
    return {name: [state.st_size, state.st_mtime_ns, state.st_ctime_ns] for name, state in states.items()}
