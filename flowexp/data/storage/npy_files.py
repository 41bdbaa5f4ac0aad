"""Rows of many files in numpy's format, mapped into memory as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowexp.data.errors import DataError
from flowexp.records.npy import CheckedRows


class ShardedArray:
    """Rows of several mapped files, numbered through. A row is compared with its checksum each time that it is read.

    Arguments:
        shards: arrays that differ in their number of rows at most, at least one.
    """

    def __init__(self, shards: Sequence[CheckedRows]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The given rows (num,), copied: (num, ...).

        Raises:
            DataError: a row is not what was written; the file is named.
        """
        first = self.shards[0].rows
        found = np.empty((len(rows), *first.shape[1:]), first.dtype)
        numbers = np.searchsorted(self.ends, rows, side="right")
        for place, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            shard = self.shards[number]
            inside = int(row - self.ends[number] + len(shard))
            found[place] = shard.rows[inside]
            if not shard.is_whole(inside, found[place]):
                raise DataError(
                    f"{shard.path} is damaged (row {inside} is not what was written): delete it and run the same "
                    "`flowexp encode` again"
                )
        return found
