"""The CSV files of a run read back, whatever state they are in: cells as text, and training curves by step."""

from __future__ import annotations

import csv
from pathlib import Path

Cells = dict[str, str]


def read_cells(path: Path) -> list[Cells]:
    """The rows of a CSV as text; empty where it is missing or no CSV."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [{key: cell or "" for key, cell in row.items() if key is not None} for row in csv.DictReader(file)]
    except (csv.Error, UnicodeDecodeError):
        return []
