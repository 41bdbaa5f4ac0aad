"""A run's folder of checkpoints: which there are, which is the newest whole one, and whether more can be written."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from flowexp.records.files.atomic import PARTIAL, move_away, remove
from flowexp.training.checkpoints.archives import CheckpointError
from flowexp.training.checkpoints.files import verify_checkpoint

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})\.ckpt")


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lies."""
    return folder / f"step_{step:08d}.ckpt"


def step_of(path: Path) -> int:
    """The number of optimizer steps in a checkpoint, from its name `step_00001000.ckpt`."""
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match[1])


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in `folder`, the oldest step first; whether they are whole is not looked at."""
    return sorted((path for path in Path(folder).glob("step_*.ckpt") if _NAME.fullmatch(path.name)), key=step_of)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint in `folder` with the most steps among those that verify; the others are named in a warning.

    Raises:
        OSError: the system could not read one, which may be whole: an older one must not be taken for it.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
        except CheckpointError as damage:
            log.warning("%s: passed over for the checkpoint before it", damage)
        except FileNotFoundError:
            if path not in list_checkpoints(folder):  # a training removed it, which has newer ones
                return latest_checkpoint(folder)
            log.warning("%s is a link to a file that is gone: passed over for the checkpoint before it", path)
        else:
            return path
    return None


def is_checkpoint(path: Path) -> bool:
    """Whether something that is no run's folder lies at `path`: a file, or the folder of a sharded checkpoint."""
    return path.is_file() or (path.is_dir() and _NAME.fullmatch(path.name) is not None)


def size_of(path: Path) -> int:
    """The bytes of a checkpoint on the disk."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint; a kill on the way leaves it, or nothing that looks like one."""
    if path.is_dir():
        move_away(path)
    else:
        path.unlink(missing_ok=True)


def prepare(folder: Path, needed: int) -> None:
    """Makes the folder, removes what killed saves left in it, and tries whether it can be written to and has room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for orphan in folder.glob(f".*{PARTIAL}"):
            remove(orphan)
        probe = folder / f".probe{PARTIAL}"
        probe.write_bytes(b"flowexp")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoints to {folder}: {error.strerror}. Choose another folder"
        ) from error
    if free < needed:
        raise CheckpointError(
            f"the checkpoints need about {_size(needed)} in {folder}, where {_size(free)} are left: make room, or "
            "choose another folder"
        )


def _size(count: int) -> str:
    """A number of bytes as it is read: `240 bytes`, `3.2 MB`, `1.5 GB`."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} bytes"
