"""VD Table 6: does SSC help on every path, linear, VP and GVP?

`python -m flowexp.reproduce vd/table6`.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, compare_scores, plot_cells, published

SCALES = {"FM": "none", "SSC": "1.1 to 1"}


def measure(lines: Lines) -> dict[str, Rows]:
    return {"scores": [line.scores() for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"paths": plot_cells(tables["scores"], keys_of(tables["scores"]), "SSC on three paths, 50 network calls")}


def keys_of(rows: Rows) -> list[str]:
    return [key for key in ("method", "SSC") if key in rows[0]]


def summarise(tables: dict[str, Rows]) -> Rows:
    paper = {(row["interpolant"], SCALES[row["method"]]): row["fid"] for row in published("vd", "table6")}
    return compare_scores(tables["scores"], keys_of(tables["scores"]), {"SSC": "none"}, paper, "SiT-B/2, 400,000 steps")
