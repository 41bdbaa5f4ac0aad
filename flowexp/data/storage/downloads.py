"""Files from the network that are either whole and right, or not there."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

from flowexp.data.errors import INSTEAD, DataError
from flowexp.records.files import atomic
from flowexp.records.files.fingerprint import md5_of

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20


def check_md5(path: Path, expected: str) -> None:
    """Refuses a file that is damaged or another one.

    Raises:
        DataError: its checksum is not the expected one.
    """
    if (found := md5_of(path)) != expected:
        raise DataError(
            f"{path} is damaged or not the file expected (md5 {found} instead of {expected}, "
            f"{path.stat().st_size} bytes): delete it to have it downloaded anew, put a whole one there, {INSTEAD}"
        )


def download(url: str, target: Path, md5: str) -> None:
    """Fetches a file, unless it is there; the target appears only once its checksum is right.

    It grows under another name beside the target. Processes that want the same file take turns: the first fetches.

    Raises:
        DataError: no network, no room, or not the file expected; nothing is left behind.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.exists():
                _fetch_checked(url, target, md5)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise DataError(
            f"{target} is missing and could not be downloaded from {url} ({error}): put the file there, {INSTEAD}"
        ) from error


def _fetch_checked(url: str, target: Path, md5: str) -> None:
    atomic.remove_leftovers(target)
    with atomic.replacing(target) as partial:
        _fetch(url, partial, target.name)
        if (found := md5_of(partial)) != md5:
            raise OSError(f"got {partial.stat().st_size} bytes with md5 {found} instead of {md5}")


def _fetch(url: str, partial: Path, name: str) -> None:
    # No bar outside of a terminal: a log file would collect its control characters.
    console = Console(stderr=True)
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
        partial.open("wb") as file,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(name, total=int(response.headers.get("Content-Length", 0)) or None)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))
