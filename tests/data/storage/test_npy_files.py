from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flowexp.data import DataError
from flowexp.data.storage.npy_files import ShardedArray
from flowexp.records.files.fingerprint import of_file
from flowexp.records.files.npy import read_rows, write_npy, write_npy_atomically

ARRAY = np.random.default_rng(0).random((7, 2, 3)).astype(np.float16)


@pytest.mark.parametrize("row_sums", [False, True])
def test_parts_become_one_array_that_numpy_reads(tmp_path: Path, row_sums: bool):
    write_npy(tmp_path / "a.npy", ARRAY.shape, np.float16, np.split(ARRAY, [2, 5]), row_sums)
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), ARRAY)
    assert np.array_equal(np.load(tmp_path / "a.npy"), ARRAY)


def test_a_file_that_was_not_finished_does_not_appear(tmp_path: Path):
    def broken():
        yield np.zeros((1, 2), np.float16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_npy_atomically(tmp_path / "a.npy", (2, 2), np.float16, broken())
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_is_of_the_file_and_not_of_its_parts(tmp_path: Path):
    one = write_npy(tmp_path / "a.npy", ARRAY.shape, np.float16, [ARRAY], row_sums=True)
    assert one == write_npy(tmp_path / "b.npy", ARRAY.shape, np.float16, np.split(ARRAY, [1]), row_sums=True)
    assert one == of_file(tmp_path / "a.npy") != write_npy(tmp_path / "c.npy", ARRAY.shape, np.float16, [-ARRAY])


def write_shards(folder: Path) -> list[Path]:
    """Seven rows in shards of four and three."""
    paths = [folder / "0.npy", folder / "1.npy"]
    for path, part in zip(paths, np.split(ARRAY, [4]), strict=True):
        write_npy(path, part.shape, np.float16, [part], row_sums=True)
    return paths


def read(paths: list[Path]) -> ShardedArray:
    return ShardedArray([read_rows(path, (rows, 2, 3), np.float16) for path, rows in zip(paths, (4, 3), strict=True)])


def test_rows_of_all_shards_are_numbered_through(tmp_path: Path):
    sharded, rows = read(write_shards(tmp_path)), np.array([6, 0, 3, 4, 5, 3])
    assert len(sharded) == 7 and np.array_equal(sharded.gather(rows), ARRAY[rows])


def test_every_flipped_bit_of_the_rows_is_noticed_where_its_row_is_used_and_nowhere_else(tmp_path: Path):
    paths = write_shards(tmp_path)
    content = paths[1].read_bytes()
    begin = len(content) - 3 * (12 + 4)  # rows of 12 bytes, then a checksum of 4 for each
    for place in range(begin, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        paths[1].write_bytes(flipped)
        inside = (place - begin) // 12 if place < begin + 36 else (place - begin - 36) // 4
        sharded, others = read(paths), np.array([row for row in range(7) if row != 4 + inside])
        assert np.array_equal(sharded.gather(others), ARRAY[others])
        with pytest.raises(DataError, match=rf"1\.npy is damaged \(row {inside} is not what was written\)"):
            sharded.gather(np.array([4 + inside]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[:-1], r"must have \d+ bytes, got \d+"),
        (lambda content: content + b"\0", r"must have \d+ bytes, got \d+"),
        (lambda content: content.replace(b"'<f2'", b"'<i2'"), "must be float16 .*got int16"),
        (lambda content: content.replace(b"(4, 2, 3)", b"(3, 2, 4)"), r"must be .*\(4, 2, 3\), got .*\(3, 2, 4\)"),
        (lambda content: content.replace(b"False", b"True "), "by columns"),
    ],
    ids=["shorter", "longer", "dtype", "shape", "order"],
)
def test_a_file_of_another_form_is_refused_before_a_row_is_read(tmp_path: Path, spoil, words: str):
    path = write_shards(tmp_path)[0]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        read_rows(path, (4, 2, 3), np.float16)


def test_files_without_checksums_are_read_as_they_are(tmp_path: Path):
    np.save(tmp_path / "a.npy", ARRAY)
    rows = read_rows(tmp_path / "a.npy", ARRAY.shape, np.float16)
    assert rows.sums is None and rows.is_whole(0, ARRAY[1])
    assert np.array_equal(ShardedArray([rows]).gather(np.arange(len(ARRAY))), ARRAY)


def test_a_file_that_is_gone_or_cut_since_it_was_opened_is_named(tmp_path: Path):
    paths = write_shards(tmp_path)
    sharded = read(paths)
    paths[0].unlink()
    with paths[1].open("r+b") as file:
        file.truncate(file.seek(0, 2) - 3 * 4 - 6)
    assert np.array_equal(sharded.gather(np.array([4, 5])), ARRAY[[4, 5]])
    for row, words in ((0, r"0\.npy is damaged \(No such file"), (6, r"1\.npy is damaged \(it ends before row 2\)")):
        with pytest.raises(DataError, match=words):
            sharded.gather(np.array([row]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_rows_that_were_read_are_not_in_this_processs_memory(tmp_path: Path):
    """As they are where a file is mapped: after an epoch all of it, 43 GB for ImageNet."""
    array = np.zeros((256, 2**17), np.float16)
    write_npy(tmp_path / "a.npy", array.shape, np.float16, [array], row_sums=True)
    sharded = ShardedArray([read_rows(tmp_path / "a.npy", array.shape, np.float16)])

    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    before = mapped()
    for rows in np.arange(256).reshape(-1, 16):
        sharded.gather(rows)
    assert mapped() - before < 2**13  # kB, of the 64 MB that the file has
