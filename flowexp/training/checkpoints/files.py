"""A checkpoint: written whole or not at all, verified before use, loaded without running code.

It is a file, or where processes wrote their shares of it a folder, see `flowexp.training.checkpoints.shards`, whose
imports take a second or two and wait for the first such folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from flowexp.records.files.atomic import move_away, replacing
from flowexp.training.checkpoints.archives import check_bytes, load, not_saved, os_error_behind


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
            if (cause := os_error_behind(error)) is None:
                raise
            raise not_saved(path, cause.strerror) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The verified content of `path`; `weights_only` is accepted for Lightning and always true."""
        return load_checkpoint(path, map_location)


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of an undamaged checkpoint; tensors and plain containers only.

    Raises:
        FileNotFoundError: there is no such file or folder.
        CheckpointError: it is damaged, or holds anything that would have to run code to be loaded.
    """
    path = Path(path)
    if path.is_dir():
        from flowexp.training.checkpoints import shards

        shards.check(path)
        return shards.load(path, map_location)
    check_bytes(path)
    return load(path, map_location=map_location)


def verify_checkpoint(path: str | Path) -> None:
    """Raises as `load_checkpoint` does, without reading the tensors into memory."""
    path = Path(path)
    if path.is_dir():
        from flowexp.training.checkpoints import shards

        shards.check(path)
    else:
        peek(path)


def peek(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, as `load_checkpoint` has it, with tensors that stay on the disk until they are used.

    Of a folder the weights in `state_dict` are read; other tensors are on the meta device.
    Raises as `load_checkpoint` does.
    """
    path = Path(path)
    if path.is_dir():
        from flowexp.training.checkpoints import shards

        shards.check(path)
        return shards.load(path, only="state_dict/")
    check_bytes(path)
    return load(path, map_location="cpu", mmap=True)


def _write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    if path.is_dir():
        move_away(path)
    with replacing(path) as partial, open(partial, "wb") as file:  # a file, not a name: torch passes the error on
        torch.save(checkpoint, file)
