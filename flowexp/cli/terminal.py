"""What a command shows: on a terminal that may be gone, in letters that it may lack, and never as markup."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console


def console(to_stderr: bool = False) -> Console:
    """Shows text as it is: `[a]` in a value, a path or a name is no style, and `:x:` no picture."""
    return Console(stderr=to_stderr, markup=False, emoji=False)


@contextmanager
def unbreakable() -> Iterator[None]:
    """Within it nothing that is shown can fail: work goes on where the terminal, or the `head` behind a pipe, is gone.

    A letter that the terminal lacks is shown by its number.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Unbreakable.around(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


class _Unbreakable:
    """A text stream whose writes do not raise; all else is that of the stream inside."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @classmethod
    def around(cls, stream: TextIO | None) -> Any:
        """Also where the process was started without such a stream, as by `2>&-`."""
        if isinstance(stream, cls):
            return stream
        return cls(open(os.devnull, "w") if stream is None else stream)  # open for as long as the process

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):  # ValueError: it is closed
            self._leave()
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._leave()

    def _leave(self) -> None:
        """Sends what is left in the buffer nowhere: Python would complain of it at its end."""
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
