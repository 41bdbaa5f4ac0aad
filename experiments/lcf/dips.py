"""What a probe's curve says of the low-noise pathology, as a line of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def dips(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each curve its peak, where that lies, the accuracy at the cleanest level, and the dip between them.

    Arguments:
        rows: `t` and `accuracy`, in long format.
        columns: those that tell one curve from another, and what they are called in the table.
    """
    table = []
    for whose in dict.fromkeys(tuple(row[column] for column in columns) for row in rows):
        curve = [row for row in rows if tuple(row[column] for column in columns) == whose]
        peak, cleanest = max(curve, key=lambda row: row["accuracy"]), min(curve, key=lambda row: row["t"])
        table.append(
            {
                **dict(zip(columns.values(), whose, strict=True)),
                "peak": peak["accuracy"],
                "t at the peak": peak["t"],
                f"at t = {cleanest['t']:g}": cleanest["accuracy"],
                "dip": peak["accuracy"] - cleanest["accuracy"],
            }
        )
    return table
