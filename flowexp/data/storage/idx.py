"""The idx format of MNIST and Fashion-MNIST: a magic number, big-endian sizes, bytes; gzipped or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from flowexp.data.errors import DataError

_UNSIGNED_BYTES = 0x08


def read_bytes(path: Path) -> bytes:
    """A file's contents, unpacked if its name ends in .gz.

    Raises:
        DataError: the packed file is truncated or damaged (gzip carries a checksum).
    """
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or no gzip file ({error}): replace it") from error


def parse_idx(contents: bytes, shape: tuple[int, ...], source: Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes.

    Arguments:
        contents: the unpacked file: 0, 0, element type, number of dimensions, sizes (uint32 each), elements.
        shape: the shape that it must have.
        source: its place, for the message.

    Raises:
        DataError: another magic number, other sizes, too few or too many bytes.
    """
    start = 4 + 4 * len(shape)
    if contents[:4] != bytes([0, 0, _UNSIGNED_BYTES, len(shape)]) or len(contents) < start:
        raise DataError(f"{source} is no idx file of {len(shape)}-dimensional bytes: replace it")
    sizes = struct.unpack(f">{len(shape)}I", contents[4:start])
    if sizes != shape:
        raise DataError(f"{source} must hold an array of {shape}, got {sizes}: it is another dataset's, replace it")
    if len(contents) - start != np.prod(shape):
        raise DataError(f"{source} must hold {np.prod(shape)} elements, got {len(contents) - start}: replace it")
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)
