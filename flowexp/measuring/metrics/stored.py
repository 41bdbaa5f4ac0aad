"""Features stored for metrics that compare images pair by pair: in memory, or mapped from a file if they are many."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from flowexp.measuring.metrics.moments import refuse_infinite
from flowexp.records.files.caches import dispensable

IN_MEMORY = 2**30  # bytes: 131,072 of Inception's features
BATCH = 8192
ZEROS = 2**24  # bytes written at once


class FeatureStore:
    """Room for N feature vectors of length D: N x D x 4 bytes, 410 MB for 50,000 of Inception's, on every process.

    Each process fills in its rows; `gather` adds the processes' arrays, batch by batch, so that no
    folder need be shared and the result does not depend on the shares.

    Arguments:
        num: N. dim: D.
        folder: where a file goes that holds what is above `in_memory` bytes; None is the system's folder for
            temporary files. It vanishes with the store.
    """

    def __init__(self, num: int, dim: int, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if num * dim * 4 <= in_memory:
            self.features = torch.zeros(num, dim)
        else:
            self.features = self._mapped(num, dim, folder)
        self._times = torch.zeros(num, dtype=torch.int32)
        self._gathered = False

    def _mapped(self, num: int, dim: int, folder: Path | None) -> Tensor:
        """Room in a file; in memory, with a warning, where the disk has not got it."""
        place = folder or Path(os.environ.get("TMPDIR") or "/tmp")
        cost = f"{num * dim * 4 / 1e9:.1f} GB of features stay in memory; set TMPDIR to a folder with room for them"
        with dispensable(place, cost):
            self._folder = tempfile.TemporaryDirectory(prefix="features_", dir=folder)
            file = Path(self._folder.name) / "features"
            try:
                reserve(file, num * dim * 4)
            except OSError:
                self._folder.cleanup()
                raise
            return torch.from_file(str(file), shared=True, size=num * dim, dtype=torch.float32).view(num, dim)
        return torch.zeros(num, dim)

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Fills in features (B, D) of the images numbered `indices` (B,)."""
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise ValueError(f"features must have shape (B, {self.features.shape[1]}), got {tuple(features.shape)}")
        self.features[indices.cpu()] = features.cpu().float()
        self._times[indices.cpu()] += 1

    def gather(self) -> Tensor:
        """The features (N, D) of all images in their order, on the CPU of every process. All processes must call it.

        Raises:
            ValueError: an image that is missing or came twice, or features that are not finite.
        """
        if not self._gathered:
            for part in (self._times, *self.features.split(BATCH)):
                _add_processes(part)
            self._gathered = True
        wrong = (self._times != 1).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(f"each of {len(self._times)} images must be added once; {wrong[:3]} were not")
        for part in self.features.split(BATCH):
            refuse_infinite(part.sum(0), len(self.features))
        return self.features


def reserve(path: Path, num_bytes: int) -> None:
    """Makes a file of zeros with its space allocated: writing to a mapped hole on a full disk would end the process.

    Raises:
        OSError: there is not so much room.
    """
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except (AttributeError, OSError) as error:  # macOS and some file systems cannot
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            for start in range(0, num_bytes, ZEROS):
                file.write(bytes(min(ZEROS, num_bytes - start)))


def _add_processes(part: Tensor) -> None:
    """Replaces `part`, on the CPU, by its sum over all processes."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    moved = part.to(torch.device("cuda", torch.cuda.current_device())) if dist.get_backend() == "nccl" else part
    dist.all_reduce(moved)
    if moved is not part:
        part.copy_(moved)
