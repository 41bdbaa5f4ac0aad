"""The norm of the velocity over the noise level, for networks of two widths: a figure of one's own.

`python -m flowexp.reproduce velocity_norms budget=smoke`, started in this folder.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"norms": [row for line in lines for row in line.rows("velocity_norms")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    names = {"t": "noise level t", "velocity": "|v| / sqrt(d)"}
    return {"norms": plot_curves(tables["norms"], "t", "velocity", series="method", names=names)}


def summarise(tables: dict[str, Rows]) -> Rows:
    noisiest = max(row["t"] for row in tables["norms"])
    return [{key: row[key] for key in ("method", "t", "ratio")} for row in tables["norms"] if row["t"] == noisiest]
