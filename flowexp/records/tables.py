"""Tables in long format: a list of rows, each a dict with the same keys. Imports nothing heavy.

They are not pandas frames: pandas (85 MB and 0.2 s of import, and no other dependency needs it) would replace this file
and `reporting.reading.read_cells`, fifty lines, while what a page shows is each cell as the file has it.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowexp.records.files import atomic


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes long-format rows as CSV, whole or not at all; the columns are those of the first row."""
    with atomic.replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def as_columns(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Long-format rows as (column names, list of lists), the form that W&B tables take."""
    columns = list(rows[0])
    return columns, [[row[column] for column in columns] for row in rows]


def read_csv(path: Path, words: Collection[str] = ()) -> list[dict[str, Any]]:
    """Reads what `write_csv` wrote; columns of numbers come back as float, their empty cells as text.

    words: columns of text, such as hashes: 12345678 and 1e234567 look like numbers.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = {*words, *(key for row in rows for key, cell in row.items() if cell and not _is_number(cell))}
    return [{key: cell if key in text or not cell else float(cell) for key, cell in row.items()} for row in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; whole numbers whole, others to four digits or to the unit."""
    columns = list(rows[0])
    lines = [columns, *([_shown(row[column]) for column in columns] for row in rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]  # a bare one begins the next cell
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], ["---"] * len(columns), *cells[1:]))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 10_000 else f"{value:.4g}"
    return "" if value is None else str(value)
