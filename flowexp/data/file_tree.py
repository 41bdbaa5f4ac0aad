"""A dataset's files by their relative names, wherever they lie: in a folder or in a zip archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from flowexp.data.errors import INSTEAD, DataError


class FileTree(Protocol):
    """Something that has files."""

    def read(self, name: str) -> bytes:
        """The contents of the file of that relative name.

        Raises:
            DataError: there is no such file, or it cannot be read.
        """


class Folder:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        """See FileTree."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path} lacks {name} ({error.strerror}): put the whole dataset there, {INSTEAD}"
            ) from error


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
            raise DataError(f"{self.path} lacks a sound {self.folder}/{name}: replace it, {INSTEAD}") from error
