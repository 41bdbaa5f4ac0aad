"""Files that appear under their name whole or not at all, and survive a power cut. The one place that does so."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
PARTIAL = ".partial"  # how the names of unfinished files end


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write a file or a folder to, which then takes the place of `path`.

    The yielded name belongs to this call alone, so that processes of a cluster may write the same file at the same
    moment: the last one to end wins. Where the block raises, `path` stays as it was, with nothing beside it.
    A folder takes the place of no existing folder. Behind a link, the file that it leads to is replaced; a device or a
    pipe, which nothing may replace, is written to as it is.

    Raises:
        OSError: no room, or no permission.
    """
    if _is_stream(path):
        yield path
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except BaseException as error:
        remove(partial)
        _name(error, partial, path)
        raise
    _sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """A name beside `path` for what is not finished, another one each time."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex[:8]}{PARTIAL}")


def move_away(path: Path) -> None:
    """Removes a folder or a file; a kill on the way leaves it whole, or what `remove_partials` removes."""
    partial = partial_of(path)
    os.replace(path, partial)
    remove(partial)


def _is_stream(path: Path) -> bool:
    """Whether it is no place on a disk, such as /dev/stdout, which may lead to a file that a shell has opened."""
    return path.parent in _STREAMS or (path.exists() and not (path.is_file() or path.is_dir()))


def _name(error: BaseException, partial: Path, path: Path) -> None:
    """Puts the name of the target into an error of the disk: that of a full one has none, or the partial file's."""
    if isinstance(error, OSError) and (error.errno in _OF_A_DISK or error.filename == str(partial)):
        error.filename, error.filename2 = str(path), None


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left beside `path` of their attempts to write it, see `remove_partials`."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        if not _may_be_written(partial):
            remove(partial)


def write_text(path: Path, text: str) -> None:
    """Writes a text file (UTF-8): a reader sees the old file or the new one, never half of it."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_partials(folder: Path) -> None:
    """Removes what killed writers have left in and below a folder; files of writers that may be alive stay.

    On another machine a writer counts as alive for an hour.
    """
    for partial in folder.rglob(f".*{PARTIAL}"):
        if not _may_be_written(partial):
            remove(partial)


def _may_be_written(partial: Path) -> bool:
    """Whether the process in a name `.NAME.HOST.PID.ID.partial` is there still."""
    name = partial.name.removesuffix(PARTIAL)
    if f".{platform.node()}." not in name:
        with suppress(OSError):
            return time.time() - partial.stat().st_mtime < 3600
        return False
    numbers = [part for part in name.rpartition(f".{platform.node()}.")[2].split(".") if part.isdigit()]
    return bool(numbers) and _is_running(int(numbers[0]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _sync(path: Path) -> None:
    """Waits until the bytes of a file, or of all files in a folder, have reached the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a new name itself survive a power cut, where the system can sync folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Removes an unfinished file or folder, whatever state it is in."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
