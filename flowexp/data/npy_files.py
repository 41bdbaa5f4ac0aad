"""Arrays on disk: written in parts, whole or not at all, and mapped into memory as one array of many files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def write_npy(path: Path, shape: Sequence[int], dtype: type[np.generic], parts: Iterable[np.ndarray]) -> None:
    """Writes an array of `shape` from its parts, in order, without ever holding all of it."""
    # Written, not mapped: a full disk is then an error and not the end of the process.
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for part in parts:
            assert part.dtype == dtype
            file.write(np.ascontiguousarray(part).data)
        assert file.tell() - start == np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize
        file.flush()
        os.fsync(file.fileno())


def write_npy_atomically(
    path: Path, shape: Sequence[int], dtype: type[np.generic], parts: Iterable[np.ndarray]
) -> None:
    """As `write_npy`, but the file appears under its name only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    write_npy(partial, shape, dtype, parts)
    os.replace(partial, path)


class ShardedArray:
    """Rows of several mapped files, numbered through.

    Arguments:
        shards: arrays that differ in their number of rows at most, at least one.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The given rows (num,), copied: (num, ...)."""
        found = np.empty((len(rows), *self.shards[0].shape[1:]), self.shards[0].dtype)
        numbers = np.searchsorted(self.ends, rows, side="right")
        for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            shard = self.shards[number]
            found[place] = shard[row - self.ends[number] + len(shard)]
        return found
