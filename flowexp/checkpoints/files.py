"""A checkpoint's file: written whole or not at all, verified before use, loaded without running code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

PARTIAL = ".partial"  # how the file ends that a save writes before the checkpoint bears its name
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
    """The content of a checkpoint whose bytes are those that were written; tensors and plain containers only.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or holds anything that would have to run code to be loaded.
    """
    path = Path(path)
    _check_bytes(path)
    return _load(path, map_location=map_location)


def verify_checkpoint(path: str | Path) -> None:
    """Raises as `load_checkpoint` does, without reading the tensors into memory."""
    path = Path(path)
    _check_bytes(path)
    _load(path, map_location="cpu", mmap=True)


def _write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as file:  # a file, not a name: torch then passes the system's error on
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """torch wraps what the system said: a full disk arrives as "unexpected pos"."""
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
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged (its record {damaged} differs from what was written)")


def _load(path: Path, **how: Any) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, **how)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is refused: it must hold tensors and plain containers only, nothing that runs code ({reason})"
        ) from error
