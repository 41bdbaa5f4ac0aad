"""Rows of many files in numpy's format, read as those of one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowexp.data.errors import DataError
from flowexp.records.files.npy import CheckedRows


class ShardedArray:
    """Rows of several files, numbered through. A row is compared with its checksum each time that it is read.

    Arguments:
        shards: arrays, with their files, that differ in their number of rows at most, at least one.
    """

    def __init__(self, shards: Sequence[CheckedRows]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The given rows (num,), copied: (num, ...).

        Raises:
            DataError: a row is not what was written, or cannot be read; the file is named.
        """
        first = self.shards[0]
        found = np.empty((len(rows), *first.shape[1:]), first.dtype)
        numbers = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            inside = rows[places] - self.ends[number] + len(self.shards[number])
            _read(self.shards[number], inside.tolist(), [found[place] for place in places])
        return found


def _read(shard: CheckedRows, numbers: list[int], rows: list[np.ndarray]) -> None:
    """Fills `rows` and compares them with their checksums. Raises as `ShardedArray.gather`."""
    damage = ""
    try:
        shard.read(numbers, rows)
    except OSError as error:
        damage = error.strerror or str(error)
    wrong = (number for number, row in zip(numbers, rows, strict=True) if not shard.is_whole(number, row))
    if not damage and (number := next(wrong, None)) is not None:
        damage = f"row {number} is not what was written"
    if damage:
        raise DataError(f"{shard.path} is damaged ({damage}): delete it and run the same `flowexp encode` again")
