from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowexp.data.npy_files import ShardedArray, write_npy, write_npy_atomically


def test_parts_become_one_array_that_numpy_reads(tmp_path: Path):
    array = np.random.default_rng(0).random((7, 2, 3)).astype(np.float16)
    write_npy(tmp_path / "a.npy", array.shape, np.float16, np.split(array, [2, 5]))
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), array)


def test_a_file_that_was_not_finished_does_not_appear(tmp_path: Path):
    def broken():
        yield np.zeros((1, 2), np.float16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_npy_atomically(tmp_path / "a.npy", (2, 2), np.float16, broken())
    assert not (tmp_path / "a.npy").exists()


def test_rows_of_all_shards_are_numbered_through():
    array = np.arange(22).reshape(11, 2)
    sharded = ShardedArray(np.split(array, [4, 8]))
    rows = np.array([10, 0, 3, 4, 7, 8, 3])
    assert len(sharded) == 11 and np.array_equal(sharded.gather(rows), array[rows])
