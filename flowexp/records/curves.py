"""The CSV files of a run read back, whatever state they are in: cells as text, and training curves by step."""

from __future__ import annotations

import csv
import math
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


def read_training(folder: Path) -> list[dict[str, float]]:
    """The training curves by step, over all parts of a run that was resumed; of a step trained twice, the last."""
    rows: dict[float, dict[str, float]] = {}
    for path in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: _version(path.parent)):
        for cells in read_cells(path):
            values = {key: number(cell) for key, cell in cells.items() if key.startswith("train/") and cell}
            step = number(cells.get("step", ""))
            if values and math.isfinite(step):
                rows[step] = values | {"step": step}
    return [rows[step] for step in sorted(rows)]


def _version(folder: Path) -> int:
    digits = folder.name.removeprefix("version_")
    return int(digits) if digits.isdigit() else -1


def number(cell: str) -> float:
    """A cell as a number; NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
