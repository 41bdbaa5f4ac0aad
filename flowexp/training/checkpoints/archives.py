"""The archives of torch.save: compared with their checksums before use, loaded without running code."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

# Errors of a system that could not read a file, whatever its content. A flipped bit can make zipfile seek to a place
# that cannot be: that error, EINVAL, belongs to the file.
_NOT_OF_THE_FILE = (
    errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT,
    errno.ENOTCONN, errno.EHOSTDOWN, errno.EAGAIN, errno.EINTR, errno.ENXIO, errno.ENODEV,
)  # fmt: skip
_FOLDER = 0x10  # the MS-DOS attribute: torch reads a record that has it, by a flipped bit, as an empty folder


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or cannot be trusted."""


def not_saved(path: Path, reason: str | None) -> CheckpointError:
    """The error of a checkpoint that the system could not write."""
    return CheckpointError(
        f"cannot save {path}: {reason}. Earlier checkpoints are intact: make room (or the folder writable) and resume"
    )


def os_error_behind(error: BaseException | None) -> OSError | None:
    """torch wraps errors of the system: a full disk arrives as "unexpected pos"."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def check_bytes(path: Path, part: IO[bytes] | None = None) -> None:
    """Compares every record with the CRC-32 that torch wrote beside it, which torch itself does not on loading.

    part: an archive that is a part of the file at `path`; without it the file is the archive.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path if part is None else part) as archive:
            damaged = archive.testzip() or next(
                (r.filename for r in archive.infolist() if r.external_attr & _FOLDER), None
            )
    except Exception as error:  # a flipped bit can make zipfile stumble in many ways
        raise_if_of_the_system(error, path)
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged (its record {damaged} differs from what was written)")


def load(path: Path, **how: Any) -> dict[str, Any]:
    """The content of an archive by torch.load with the options `how`; CheckpointError for what would run code."""
    try:
        return torch.load(path, weights_only=True, **how)
    except Exception as error:
        raise_if_of_the_system(error, path)
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is refused: it must hold tensors and plain containers only, nothing that runs code ({reason})"
        ) from error


def raise_if_of_the_system(error: BaseException, path: Path) -> None:
    """Raises OSError, with the file's name, where the system, and no damage, made a file unreadable.

    torch wraps the system's error in a RuntimeError that ends in the same words.
    """
    if isinstance(error, FileNotFoundError):
        raise FileNotFoundError(f"no checkpoint at {path}") from error
    code = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        code = next((code for code in _NOT_OF_THE_FILE if os.strerror(code).lower() in str(error).lower()), None)
    if code in _NOT_OF_THE_FILE:
        raise OSError(code, os.strerror(code), str(path)) from error
