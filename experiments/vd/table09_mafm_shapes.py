"""VD Table 9: does the shape of MAFM's weight matter, where its integral is the same?

`python -m flowexp.reproduce vd/table9`.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, compare_scores, plot_cells, published


def measure(lines: Lines) -> dict[str, Rows]:
    return {"scores": [line.scores() for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {
        "shapes": plot_cells(tables["scores"], keys_of(tables["scores"]), "Shapes of MAFM's weight, 50 network calls")
    }


def keys_of(rows: Rows) -> list[str]:
    return [key for key in ("method", "SSC") if key in rows[0]]


def summarise(tables: dict[str, Rows]) -> Rows:
    paper = {(row["method"], "none"): row["fid"] for row in published("vd", "table9")}
    return compare_scores(
        tables["scores"], keys_of(tables["scores"]), {"method": "FM"}, paper, "SiT-S/2, 400,000 steps"
    )
