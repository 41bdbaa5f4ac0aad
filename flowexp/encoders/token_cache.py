"""Teachers' tokens on disk, found again by the content of the picture."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from flowexp.encoders.teachers import Teacher

_DIGEST = 16  # bytes


class TokenCache:
    """Asks the teacher for each picture once; a flipped picture is another one.

    Every process adds to files of its own and reads those of all earlier ones, so nothing is locked; two processes
    may store the same picture. A row counts when its key is written, which is after its tokens: a kill costs a row.
    float16: 50 000 pictures and their flips take 1 GB for 49 tokens of 112, 39 GB for DINOv2's 256 of 768. Of no use
    for pictures that are cropped at random.

    Arguments:
        teacher: whose tokens.
        folder: where; tokens of other teachers and grids lie apart in it.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher = teacher
        self.folder = Path(folder).expanduser()
        self._grids: dict[int, _Rows] = {}

    def tokens(self, images: Tensor, side: int) -> Tensor:
        """`teacher.tokens`, rounded to float16."""
        rows = self._rows(side)
        keys = [hashlib.blake2b(image.tobytes(), digest_size=_DIGEST).digest() for image in images.cpu().numpy()]
        missing = {key: i for i, key in enumerate(keys) if key not in rows}
        if missing:
            new = self.teacher.tokens(images[list(missing.values())], side)
            rows.add(list(missing), new.to("cpu", torch.float16).numpy())
        return torch.from_numpy(rows.read(keys)).to(images.device, torch.float32)

    def _rows(self, side: int) -> _Rows:
        if side not in self._grids:
            about = json.dumps({**self.teacher.protocol(), "side": side}, sort_keys=True)
            place = f"{self.teacher.name}-{side}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
            self._grids[side] = _Rows(self.folder / place, (side**2, self.teacher.dim))
        return self._grids[side]


class _Rows:
    """float16 arrays of one shape by key, in pairs of files NAME.keys and NAME.tokens."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.shape = shape
        self.num_bytes = 2 * math.prod(shape)
        self.places: dict[bytes, tuple[BinaryIO, int]] = {}
        self.own: tuple[BinaryIO, BinaryIO] | None = None
        for path in sorted(folder.glob("*.keys")):
            keys, tokens = path.read_bytes(), path.with_suffix(".tokens").open("rb", buffering=0)
            self._note([keys[i : i + _DIGEST] for i in range(0, len(keys) - _DIGEST + 1, _DIGEST)], tokens, 0)

    def __contains__(self, key: bytes) -> bool:
        return key in self.places

    def read(self, keys: list[bytes]) -> np.ndarray:
        """(len(keys), *shape)."""
        rows = [os.pread(file.fileno(), self.num_bytes, place) for file, place in map(self.places.__getitem__, keys)]
        return np.frombuffer(bytearray().join(rows), dtype=np.float16).reshape(len(keys), *self.shape)

    def add(self, keys: list[bytes], tokens: np.ndarray) -> None:
        """Writes the tokens (len(keys), *shape), then their keys."""
        if self.own is None:
            path = self.folder / uuid.uuid4().hex
            self.own = path.with_suffix(".tokens").open("x+b"), path.with_suffix(".keys").open("xb")
        file, names = self.own
        begin = file.seek(0, os.SEEK_END)
        for target, content in ((file, tokens.tobytes()), (names, b"".join(keys))):
            target.write(content)
            target.flush()
        self._note(keys, file, begin)

    def _note(self, keys: list[bytes], file: BinaryIO, begin: int) -> None:
        self.places.update((key, (file, begin + i * self.num_bytes)) for i, key in enumerate(keys))
