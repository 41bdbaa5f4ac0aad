"""VD Table 9: does the shape of MAFM's weight matter, where its integral is the same?

`python -m flowexp.reproduce vd/table9`.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Rows, compare_scores, measure_scores, plot_cells, published

KEYS = ("method", "SSC")  # what tells its lines apart

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"shapes": plot_cells(tables["scores"], KEYS, "Shapes of MAFM's weight, 50 network calls")}


def summarise(tables: dict[str, Rows]) -> Rows:
    paper = {(row["method"], "none"): row["fid"] for row in published("vd", "table9")}
    return compare_scores(tables["scores"], KEYS, {"method": "FM"}, paper, "SiT-S/2, 400,000 steps")
