"""VD Table 8: does SSC help a U-Net, in any of its shapes?

`python -m flowexp.reproduce vd/table8`, with `run=RUN` for a run of your own.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Printed,
    Rows,
    compare_scores,
    judge_share,
    least_gains,
    measure_scores,
    plot_cells,
    published,
)

KEYS = ("SSC",)  # what tells its lines apart
PLAIN = {"SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"unet": plot_cells(tables["scores"], KEYS, "SSC on a U-Net, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    scales = {"FM": "none", "SSC linear": "1.1 to 1"}
    paper = {
        (scales.get(row["method"], row["method"].removeprefix("SSC ")),): row["fid"]
        for row in published("vd", "table8")
    }
    return Printed(paper, "a U-Net of 76M")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    return {"ssc_helps_a_unet": judge_share(least_gains(tables["scores"], {"SSC": "none"}))}
