"""VD Table 6: does SSC help on every path, linear, VP and GVP?

`python -m flowexp.reproduce vd/table6`.
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
    measure_scores,
    plot_cells,
    published,
)

SCALES = {"FM": "none", "SSC": "1.1 to 1"}

KEYS = ("method", "SSC")  # what tells its lines apart
PLAIN = {"SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"paths": plot_cells(tables["scores"], KEYS, "SSC on three paths, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    paper = {(row["interpolant"], SCALES[row["method"]]): row["fid"] for row in published("vd", "table6")}
    return Printed(paper, "SiT-B/2, 400,000 steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    def judged(path: str) -> Judgement:
        plain = {"method": path, "SSC": "none"}
        return judge_share(gains(tables["scores"], plain, plain | {"SSC": "1.1 to 1"}))

    paths = {"linear": "Linear", "vp": "SBDM-VP", "gvp": "GVP"}
    return {f"ssc_helps_on_{name}": judged(path) for name, path in paths.items()}
