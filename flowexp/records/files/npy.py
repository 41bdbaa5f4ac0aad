"""Arrays in files of numpy's format, written in parts and checked when they are read."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowexp.records.files import atomic
from flowexp.records.files.fingerprint import Fingerprint

_SUM = np.dtype("<u4")  # of a row's checksum


def write_npy(
    path: Path, shape: Sequence[int], dtype: type[np.generic], parts: Iterable[np.ndarray], row_sums: bool = False
) -> str:
    """Writes an array of `shape` from its parts, in order, without ever holding all of it; returns its fingerprint.

    row_sums: lets the CRC-32 of each row follow the array, where `read_rows` looks for them and numpy does not. The
    array and its checksums are then one file, which appears and is replaced as one.

    Raises:
        OSError: no room, or no permission. Written and not mapped: a full disk would end the process.
    """
    begin, sums = _header(shape, dtype), list[int]()
    with path.open("wb") as file:
        fingerprint = Fingerprint().add(begin)
        file.write(begin)
        for part in parts:
            assert part.dtype == dtype
            rows = np.ascontiguousarray(part)
            file.write(rows.data)
            fingerprint.add(rows)
            sums += [zlib.crc32(row.data) for row in rows] if row_sums else []
        assert file.tell() - len(begin) == np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize
        fingerprint.add(end := np.array(sums, _SUM).tobytes())
        file.write(end)
    return fingerprint.digits


def _header(shape: Sequence[int], dtype: type[np.generic]) -> bytes:
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


def write_npy_atomically(
    path: Path, shape: Sequence[int], dtype: type[np.generic], parts: Iterable[np.ndarray], row_sums: bool = False
) -> str:
    """As `write_npy`, but the file appears under its name only when it is complete, whatever else writes it."""
    with atomic.replacing(path) as partial:
        return write_npy(partial, shape, dtype, parts, row_sums)


def save_array(path: Path, array: np.ndarray) -> str:
    """Writes an array that is in memory, whole or not at all; returns the file's fingerprint."""
    return write_npy_atomically(path, array.shape, array.dtype.type, [array])


@dataclass(frozen=True)
class CheckedRows:
    """An array in its file, whose rows are read as they are used, and the CRC-32 of each where the file has them.

    Read and not mapped: at random places of 40 GB the system would read ahead around each row, thirty times the time of
    the row itself, and count all of it as this process's memory. No file stays open, however many there are.

    Arguments:
        path: of the file.
        shape: (N, ...).
        dtype: of the numbers.
        start: the byte at which they begin.
        sums: uint32 (N,), or None.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    sums: np.ndarray | None

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, numbers: Iterable[int], rows: Iterable[np.ndarray]) -> None:
        """Fills each of `rows` (...) with the row of its number.

        Raises:
            OSError: the file is gone, or has become shorter.
        """
        with self.path.open("rb", buffering=0) as file:
            _read_nothing_ahead(file)
            for number, row in zip(numbers, rows, strict=True):
                file.seek(self.start + int(number) * row.nbytes)
                if file.readinto(row.reshape(-1).view(np.uint8).data) != row.nbytes:
                    raise OSError(f"it ends before row {number}")

    def is_whole(self, number: int, row: np.ndarray) -> bool:
        """Whether `row` is what was written as the row of that number."""
        return self.sums is None or zlib.crc32(np.ascontiguousarray(row).data) == int(self.sums[number])


def _read_nothing_ahead(file: io.FileIO) -> None:
    """Tells the system that the next row lies elsewhere, where it can be told so."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)


def read_rows(path: Path, shape: Sequence[int], dtype: type[np.generic]) -> CheckedRows:
    """What `write_npy` wrote, with or without `row_sums`. Rows are checked as they are used: none is read now.

    Raises:
        ValueError: another shape or dtype, or more or fewer bytes than they take.
        OSError: the file is not there or cannot be read.
    """
    with path.open("rb") as file:
        start = _check_header(file, tuple(shape), np.dtype(dtype))
    end = start + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    size, with_sums = path.stat().st_size, end + shape[0] * _SUM.itemsize
    if size not in (end, with_sums):
        raise ValueError(f"it must have {with_sums} bytes, got {size}")
    sums = np.fromfile(path, _SUM, offset=end) if size == with_sums else None
    return CheckedRows(path, tuple(shape), np.dtype(dtype), start, sums)


def _check_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Where the array begins; raises ValueError where the header is that of another array."""
    np.lib.format.read_magic(file)
    there, by_columns, kind = np.lib.format.read_array_header_1_0(file)
    if (there, by_columns, kind) != (shape, False, dtype):
        raise ValueError(f"it must be {dtype} {shape}, got {kind} {there}{' by columns' if by_columns else ''}")
    return file.tell()
