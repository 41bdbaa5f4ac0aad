"""A dataset's files by their relative names, wherever they lie: in a folder or in a zip archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Protocol

from flowexp.data.errors import INSTEAD, DataError

_THREADS = 8
_AT_ONCE = 128  # files in a thread's turn


class FileTree(Protocol):
    """Something that has files."""

    path: Path

    def read(self, name: str) -> bytes:
        """The contents of the file of that relative name.

        Raises:
            DataError: there is no such file, or it cannot be read.
        """

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Bytes of these files; raises as `read`."""

    def checksums(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the contents of these files; raises as `read`."""


class Folder:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        """See FileTree."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise self._lacks(name, error) from error

    def sizes(self, names: Sequence[str]) -> list[int]:
        """See FileTree. One look at each file, in threads: a file system of a cluster takes a millisecond for one."""
        return _in_threads(self._size, names)

    def checksums(self, names: Sequence[str]) -> list[int]:
        """See FileTree."""
        return _in_threads(lambda name: zlib.crc32(self.read(name)), names)

    def _size(self, name: str) -> int:
        try:
            return os.stat(f"{self.path}/{name}").st_size
        except OSError as error:
            raise self._lacks(name, error) from error

    def _lacks(self, name: str, error: OSError) -> DataError:
        return DataError(f"{self.path} lacks {name} ({error.strerror}): put the whole dataset there, {INSTEAD}")


def _in_threads(function: Callable[[str], int], names: Sequence[str]) -> list[int]:
    """function(name) of all names, in their order."""
    parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="files") as pool:
        return list(chain.from_iterable(pool.map(lambda part: [function(name) for name in part], parts)))


class Zip:
    """The files under a folder inside a zip archive, which is never unpacked."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path = path
        self.folder = folder
        try:
            self.archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is truncated or no zip archive ({error}): replace it, {INSTEAD}") from error

    def read(self, name: str) -> bytes:
        """See FileTree."""
        try:
            return self.archive.read(f"{self.folder}/{name}")
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise self._lacks(name) from error

    def sizes(self, names: Sequence[str]) -> list[int]:
        """See FileTree: as the archive lists them."""
        return [self._listed(name).file_size for name in names]

    def checksums(self, names: Sequence[str]) -> list[int]:
        """See FileTree: as the archive lists them, which every reading compares."""
        return [self._listed(name).CRC for name in names]

    def _listed(self, name: str) -> zipfile.ZipInfo:
        try:
            return self.archive.getinfo(f"{self.folder}/{name}")
        except KeyError as error:
            raise self._lacks(name) from error

    def _lacks(self, name: str) -> DataError:
        return DataError(f"{self.path} lacks a sound {self.folder}/{name}: replace it, {INSTEAD}")
