"""A checkpoint's file: written whole or not at all, verified before use, loaded without running code."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from flowexp.records.atomic import PARTIAL, replacing

__all__ = ["PARTIAL", "AtomicCheckpointIO", "CheckpointError", "load_checkpoint", "peek", "verify_checkpoint"]

# Errors of a system that could not read a file, whatever its content. A flipped bit can make zipfile seek to a place
# that cannot be: that error, EINVAL, belongs to the file.
_NOT_OF_THE_FILE = (
    errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT,
    errno.ENOTCONN, errno.EHOSTDOWN, errno.EAGAIN, errno.EINTR, errno.ENXIO, errno.ENODEV,
)  # fmt: skip
_FOLDER = 0x10  # the MS-DOS attribute: torch reads a record that has it, by a flipped bit, as an empty folder


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or cannot be trusted."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's door to checkpoint files: a kill at any instant leaves the old file or the new one, never half.

    The bytes go into a file beside the target (the same filesystem, so that the rename is atomic) and to the disk
    before it takes the target's name. Loading verifies the file and never runs code from it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes `checkpoint` to `path`. Raises CheckpointError with the file that was there before left intact."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(checkpoint, path)
        except (OSError, RuntimeError) as error:
            cause = _os_error_behind(error)
            if cause is None:
                raise
            raise CheckpointError(
                f"cannot save {path}: {cause.strerror}. Earlier checkpoints are intact: make room (or the folder "
                "writable) and resume"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The verified content of `path`; `weights_only` is accepted for Lightning and always true."""
        return load_checkpoint(path, map_location)


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of an undamaged checkpoint; tensors and plain containers only.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or holds anything that would have to run code to be loaded.
    """
    path = Path(path)
    _check_bytes(path)
    return _load(path, map_location=map_location)


def verify_checkpoint(path: str | Path) -> None:
    """Raises as `load_checkpoint` does, without reading the tensors into memory."""
    peek(path)


def peek(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, as `load_checkpoint` has it, with tensors that stay on the disk until they are used.

    Raises as `load_checkpoint` does.
    """
    path = Path(path)
    _check_bytes(path)
    return _load(path, map_location="cpu", mmap=True)


def _write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    with replacing(path) as partial, open(partial, "wb") as file:  # a file, not a name: torch passes the error on
        torch.save(checkpoint, file)


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """torch wraps errors of the system: a full disk arrives as "unexpected pos"."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _check_bytes(path: Path) -> None:
    """Compares every record with the CRC-32 that torch wrote beside it, which torch itself does not on loading."""
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() or next(
                (r.filename for r in archive.infolist() if r.external_attr & _FOLDER), None
            )
    except Exception as error:  # a flipped bit can make zipfile stumble in many ways
        _raise_if_of_the_system(error, path)
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged (its record {damaged} differs from what was written)")


def _load(path: Path, **how: Any) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, **how)
    except Exception as error:
        _raise_if_of_the_system(error, path)
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is refused: it must hold tensors and plain containers only, nothing that runs code ({reason})"
        ) from error


def _raise_if_of_the_system(error: BaseException, path: Path) -> None:
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
