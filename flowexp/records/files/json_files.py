"""JSON files that a kill, a full disk or a person may have damaged: read as an object, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: there is no such file, or the system cannot read it.
        ValueError: it holds something else; the sentence names the file.
    """
    content = path.read_bytes()
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(_damaged(path, "is no JSON" if content.strip() else "is empty")) from None
    if not isinstance(parsed, dict):
        raise ValueError(_damaged(path, f"holds a {type(parsed).__name__}"))
    return parsed


def _damaged(path: Path, what: str) -> str:
    return f"{path} is damaged: it must hold a JSON object, and {what}. Bring back a whole copy, or move the file away"
