"""Fingerprints: hashes that identify content, and the one place where anything is hashed. Imports no torch.

Content (arrays, weights, files, text) is BLAKE2b, 16 hexadecimal digits, about 0.7 s per GB. Plain values, such as the
settings behind a key or a card, are SHA-256 of their JSON with sorted keys. `sha256_of` and `md5_of` are checksums that
others publish: a file of weights can be compared with its page, a download with its dataset's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BYTES = 8  # of a fingerprint: that two of 10^8 contents have the same has a chance of 3 in 10,000


class Fingerprint:
    """The fingerprint of content that arrives in parts; the same however it is cut.

    Arguments:
        size: bytes; a hexadecimal digit is half of one.

    >>> whole, cut = Fingerprint().add("flow matching"), Fingerprint().add("flow ").add("matching")
    >>> whole.digits == cut.digits
    True
    """

    def __init__(self, size: int = BYTES) -> None:
        self._hash = hashlib.blake2b(digest_size=size)

    def add(self, part: str | bytes | np.ndarray | Tensor) -> Fingerprint:
        """Appends text (UTF-8), bytes, or the elements of an array or tensor of any dtype; not its shape."""
        self._hash.update(_bytes_of(part))
        return self

    @property
    def digits(self) -> str:
        """Hexadecimal, of all parts until now."""
        return self._hash.hexdigest()

    @property
    def raw(self) -> bytes:
        """The same as bytes."""
        return self._hash.digest()


def _bytes_of(part: str | bytes | np.ndarray | Tensor) -> bytes | memoryview:
    if isinstance(part, str):
        return part.encode(errors="surrogateescape")  # names of files may be any bytes
    if isinstance(part, bytes):
        return part
    if isinstance(part, np.ndarray):
        return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
    import torch  # loaded by whoever has a tensor

    return part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def of_content(*parts: str | bytes | np.ndarray | Tensor) -> str:
    """The fingerprint of parts in their order."""
    fingerprint = Fingerprint()
    for part in parts:
        fingerprint.add(part)
    return fingerprint.digits


def of_file(path: Path) -> str:
    """The fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=BYTES)).hexdigest()


def of_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """The fingerprint of named tensors of any shape in their order, such as `network.state_dict().items()`."""
    fingerprint = Fingerprint()
    for name, tensor in weights:
        fingerprint.add(name).add(tensor)
    return fingerprint.digits


def of_values(values: Any, digits: int = 16) -> str:
    """The fingerprint of plain values: equal for what JSON writes alike, in whatever order the keys stand.

    Raises:
        TypeError: a value that JSON does not know.
    """
    return sha256_of(json.dumps(values, sort_keys=True).encode(), digits)


def sha256_of(content: bytes, digits: int = 16) -> str:
    """The first digits of what `sha256sum` prints of the content."""
    return hashlib.sha256(content).hexdigest()[:digits]


def md5_of(content: Path | bytes) -> str:
    """The checksum by which datasets are published, of a file or its content; it finds damage, not malice."""
    if isinstance(content, bytes):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
