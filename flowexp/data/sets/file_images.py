"""Images that stay in their files and are decoded for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from flowexp.data.errors import DataError
from flowexp.data.sets.batch_rows import Batch, Pick, mirror, subset_rows
from flowexp.data.sets.crop import read_square
from flowexp.data.sets.identity import identity_of_files
from flowexp.data.storage.file_tree import Folder

_GIGABYTE = 1e9
_MOST_GIGABYTES = 32.0  # more than this at once is a mistake, and would end the process


class Decoder:
    """Reads the pictures of a folder as squares, in threads: Pillow decodes and resizes outside Python's lock.

    Arguments:
        folder: of the files.
        resolution: side of the squares.
        num_workers: threads.
    """

    def __init__(self, folder: Path, resolution: int, num_workers: int) -> None:
        self.folder = folder
        self.resolution = resolution
        self.num_workers = num_workers

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.num_workers, thread_name_prefix="decoder")

    def read(self, names: Sequence[str]) -> Tensor:
        """The files of these relative names: uint8 (num, 3, resolution, resolution)."""
        images = torch.empty(len(names), 3, self.resolution, self.resolution, dtype=torch.uint8)
        paths = [self.folder / name for name in names]
        for row, image in enumerate(self._pool.map(read_square, paths, [self.resolution] * len(paths))):
            images[row] = torch.from_numpy(np.ascontiguousarray(image))
        return images


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, with their labels: see `Images`.

    Arguments:
        decoder: what reads them.
        names: their relative names, N of them.
        labels: int64 (N,).
    """

    decoder: Decoder
    names: Sequence[str]
    labels: Tensor

    prefetch: ClassVar[int] = 2
    device: ClassVar[torch.device] = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Of the files and the resolution, see `identity_of_files`; nothing is decoded."""
        return identity_of_files(Folder(self.decoder.folder), self.names, str(self.decoder.resolution))

    @property
    def gigabytes(self) -> float:
        """What all of them take decoded."""
        return len(self) * 3 * self.decoder.resolution**2 / _GIGABYTE

    @property
    def images(self) -> Tensor:
        """All of them, decoded now.

        Raises:
            DataError: they would not fit.
        """
        if self.gigabytes > _MOST_GIGABYTES:
            raise DataError(
                f"{len(self)} decoded images take {self.gigabytes:.0f} GB of memory: measure on a subset, as by "
                "max_reference or max_train_images, or set data.train_size"
            )
        return self.decoder.read(self.names)

    def select(self, rows: Tensor) -> FileImages:
        """The images of the given rows (num,), not decoded yet."""
        return FileImages(self.decoder, [self.names[row] for row in rows.tolist()], self.labels[rows])

    def subset(self, num: int) -> FileImages:
        """A fixed random subset, see `subset_rows`."""
        return self.select(subset_rows(num, len(self)))

    def to(self, device: torch.device | str) -> FileImages:
        """Refused: they are not in memory."""
        raise DataError("these images are decoded batch by batch and cannot stay on a device: set data.on_device=false")

    def batch(self, pick: Pick) -> Batch:
        """`image` uint8 (B, 3, H, W) and `label` int64 (B,)."""
        chosen = self.select(pick.rows)
        return {"image": mirror(chosen.images, pick.flips), "label": chosen.labels}
