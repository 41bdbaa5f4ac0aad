"""What a cache that cannot be written costs: a warning, never the work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def dispensable(folder: Path, cost: str) -> Iterator[None]:
    """Turns the system's refusal to write below `folder` into a warning that names the folder and the reason.

    cost: what the reader loses by it, such as `they are computed again next time`.
    """
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error).lower()
        warnings.warn(f"{folder.absolute()} cannot be written ({reason}): {cost}", stacklevel=4)
