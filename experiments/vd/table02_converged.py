"""VD Table 2: does SSC help converged networks, and beside classifier-free guidance?

`python -m flowexp.reproduce vd/table2`. At budget=paper from published weights: adopt SiT-XL/2 of 7M
steps and REPA's of 4M first. The second SSC row at CFG 1.5, FID 2.54, has an s0 that is not legible.
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

KEYS = ("method", "CFG", "SSC")  # what tells its lines apart
PLAIN = {"SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"converged": plot_cells(tables["scores"], KEYS, "SSC and guidance, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    names = {"SiT-XL/2 7M": ("SiT-XL/2 7M", "FM"), "REPA SiT-XL/2 4M": ("REPA SiT-XL/2 4M",)}
    paper = {
        (method, row["cfg"], SCALES[row["method"]]): row["fid"]
        for row in published("vd", "table2")
        if row["method"] in SCALES
        for method in names[row["model"]]
    }
    return Printed(paper, "SiT-XL/2, 7M steps, REPA 4M")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    guided = {"CFG": 1.5, "SSC": "none"}
    return {
        "ssc_helps_beside_guidance": judge_share(gains(tables["scores"], guided, guided | {"SSC": "1.1 to 1"})),
    }
