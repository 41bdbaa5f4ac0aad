"""Which code runs: the commit of the source tree."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def git_commit() -> str | None:
    """The commit of the source tree, with `-dirty` behind it where files differ from it; None outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # .venv may lie in the checkout of something else
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    found = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    return found.stdout.strip()
