"""VD Table 9: does the shape of MAFM's weight matter, where its integral is the same?

`python -m flowexp.reproduce vd/table9`.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Printed,
    Rows,
    compare_scores,
    gains,
    judge_share,
    least_gains,
    measure_scores,
    plot_cells,
    published,
)

KEYS = ("method", "SSC")  # what tells its lines apart
PLAIN = {"method": "FM"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"shapes": plot_cells(tables["scores"], KEYS, "Shapes of MAFM's weight, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    paper = {(row["method"], "none"): row["fid"] for row in published("vd", "table9")}
    return Printed(paper, "SiT-S/2, 400,000 steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["scores"]
    rapid, sustained = {"method": "MAFM quad_out"}, {"method": "MAFM quad_in"}
    return {
        "every_shape_helps": judge_share(least_gains(rows, {"method": "FM"})),
        "sustained_beats_rapid": judge_share(gains(rows, rapid, sustained), 0.01),
    }
