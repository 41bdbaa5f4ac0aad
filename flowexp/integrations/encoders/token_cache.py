"""Teachers' tokens on disk, found again by the content of the picture."""

from __future__ import annotations

import math
import os
import struct
import uuid
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.integrations.encoders.teachers import Teacher
from flowexp.records.files.caches import dispensable
from flowexp.records.files.fingerprint import Fingerprint, of_values

_KEY = 16  # bytes of a picture's fingerprint
_ENTRY = _KEY + 4  # ... and of the CRC-32 of its tokens
_FORMAT = 2  # of the files, part of the folder's name


class TokenCache:
    """Compute the tokens of each picture once; a flipped picture is another one.

    Every process adds to separate files and reads those of all earlier ones, so nothing is locked; two processes
    may store the same picture. A row counts when its key is written, which is after its tokens: a kill costs a row.
    Beside the key stands a checksum of the tokens: a row that is damaged or cut off counts as missing. Where nothing
    can be written, the teacher runs at every step, after a warning.

    float16: 50 000 pictures and their flips take 1 GB for 49 tokens of 112, 39 GB for DINOv2's 256 of 768. Of no use
    for pictures that are cropped at random.

    Arguments:
        teacher: the network of the tokens.
        folder: where; tokens of other teachers and grids lie apart in it.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher = teacher
        self.folder = Path(folder).expanduser()
        self._grids: dict[int, _Rows] = {}

    def tokens(self, images: Tensor, side: int) -> Tensor:
        """`teacher.tokens` (B, side^2, D) of pictures (B, C, H, W), rounded to float16."""
        rows, device = self._rows(side), images.device
        keys = [Fingerprint(_KEY).add(image).raw for image in images.cpu().numpy()]
        found = rows.read(keys)
        missing = {key: i for i, key in enumerate(keys) if key not in found}
        if missing:
            new = self.teacher.tokens(images[list(missing.values())], side).to("cpu", torch.float16).numpy()
            found |= dict(zip(missing, new, strict=True))
            rows.add(list(missing), new)
        return torch.from_numpy(np.stack([found[key] for key in keys])).to(device, torch.float32)

    def _rows(self, side: int) -> _Rows:
        if side not in self._grids:
            decides = {**self.teacher.protocol(), "side": side, "format": _FORMAT}
            place = f"{self.teacher.name}-{side}-{of_values(decides, digits=12)}"
            self._grids[side] = _Rows(self.folder / place, (side**2, self.teacher.dim))
        return self._grids[side]


@dataclass(frozen=True)
class _Place:
    """Where a row lies, and the CRC-32 of its content."""

    path: Path
    file: FileIO
    begin: int
    checksum: int


class _Rows:
    """float16 arrays of one shape by key, in pairs of files NAME.keys and NAME.tokens."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.folder = folder
        self.shape = shape
        self.num_bytes = 2 * math.prod(shape)
        self.places: dict[bytes, list[_Place]] = {}
        self.own: tuple[FileIO, FileIO] | None = None
        self.is_full = False
        for path in sorted(folder.glob("*.keys"), key=_age):  # the newest last, which is tried first
            with suppress(OSError):  # what cannot be read counts as missing
                self._note(path.read_bytes(), path.with_suffix(".tokens"), None, 0)

    def read(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        """The arrays of those keys that have a sound one."""
        read = {key: self._row(key) for key in dict.fromkeys(keys)}
        return {key: row for key, row in read.items() if row is not None}

    def _row(self, key: bytes) -> np.ndarray | None:
        places = self.places.get(key, [])
        while places:
            content = os.pread(places[-1].file.fileno(), self.num_bytes, places[-1].begin)
            if len(content) == self.num_bytes and zlib.crc32(content) == places[-1].checksum:
                return np.frombuffer(bytearray(content), dtype=np.float16).reshape(self.shape)
            damaged = places.pop().path
            warnings.warn(f"{damaged} is damaged: its lost tokens are computed again", stacklevel=5)
        return None

    def add(self, keys: list[bytes], tokens: np.ndarray) -> None:
        """Writes the tokens (len(keys), *shape), then their keys; after a full disk nothing any more."""
        if self.is_full:
            return
        self.is_full = True
        with dispensable(self.folder, "the teacher runs at every step; give terms.repa.cache another folder"):
            self._write(keys, tokens)
            self.is_full = False

    def _write(self, keys: list[bytes], tokens: np.ndarray) -> None:
        if self.own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / uuid.uuid4().hex
            self.own = FileIO(path.with_suffix(".tokens"), "x+"), FileIO(path.with_suffix(".keys"), "x")
        file, index = self.own
        begin = file.seek(0, os.SEEK_END)
        rows = [row.tobytes() for row in tokens]
        entries = b"".join(key + struct.pack("<I", zlib.crc32(row)) for key, row in zip(keys, rows, strict=True))
        _write_all(file, b"".join(rows))
        _write_all(index, entries)
        self._note(entries, Path(str(file.name)), file, begin)

    def _note(self, entries: bytes, path: Path, file: FileIO | None, begin: int) -> None:
        """Takes the places of rows that lie one behind the other, from their entries."""
        file = file or FileIO(path)
        for row, start in enumerate(range(0, len(entries) - _ENTRY + 1, _ENTRY)):
            key, (checksum,) = entries[start : start + _KEY], struct.unpack_from("<I", entries, start + _KEY)
            place = _Place(path, file, begin + row * self.num_bytes, checksum)
            self.places.setdefault(key, []).append(place)


def _age(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _write_all(file: FileIO, content: bytes) -> None:
    """Writes without a buffer, whose rest Python would try to write again and again on a full disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
