"""VD Table 7: does the shape of SSC's scale matter, where its mean over the path is the same?

`python -m flowexp.reproduce vd/table7`, with `run=RUN` for a run of your own. The shapes are drawn by `vd/fig08`.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Printed,
    Rows,
    compare_scores,
    distance_in,
    gains,
    judge_difference,
    measure_scores,
    over_seeds,
    plot_cells,
    published,
)

KEYS = ["sampler", "SSC"]
PLAIN = {"SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"shapes": plot_cells(tables["scores"], KEYS, "Shapes of SSC's scale, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    shapes = {"linear": "1.1 to 1"}
    paper = {
        ("Euler-Maruyama", shapes.get(row["shape"], row["shape"])): row["fid"] for row in published("vd", "table7")
    }
    return Printed(paper, "SiT-XL/2, 7M steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["scores"]
    distance = distance_in(rows[0])
    shapes = over_seeds([row for row in rows if row["SSC"] != "none"], ["SSC"], [distance])
    best, worst = (pick(shapes, key=lambda row: row[distance])["SSC"] for pick in (min, max))
    return {
        "sustained_beats_rapid": judge_difference(
            gains(rows, {"SSC": "quad_out"}, {"SSC": "quad_in"}), 0.01, " %", 100
        ),
        "shape_matters_beside_the_mean": judge_difference(
            gains(rows, {"SSC": worst}, {"SSC": best}), 0.02, f" % ({best} against {worst})", 100
        ),
    }
