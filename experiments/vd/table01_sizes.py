"""VD Table 1: do MAFM and SSC give better samples than FM, for networks of every size?

`python -m flowexp.reproduce vd/table1`. On a CPU there is one size, with three seeds, and MAFM at two lambdas.
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

MODEL = "SiT-S/2"  # the paper's smallest, beside ours

KEYS = ("panel", "method", "SSC")  # what tells its lines apart
PLAIN = {"method": "FM", "SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"sizes": plot_cells(tables["scores"], KEYS, "FM, MAFM and SSC, 50 network calls", PLAIN, printed(tables))}


def printed(tables: dict[str, Rows]) -> Printed:
    rows = tables["scores"]
    paper = {}
    for row in published("vd", "table1"):
        cell = ("FM", "1.1 to 1") if row["method"] == "SSC" else (row["method"], "none")
        if "panel" in rows[0]:
            paper[row["model"], *cell] = row["fid"]
        elif row["model"] == MODEL:
            paper[cell] = row["fid"]
    scale = "400,000 steps" if "panel" in rows[0] else f"{MODEL}, 400,000 steps"
    return Printed(paper, scale)


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed(tables))


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    plain, mafm = {"method": "FM", "SSC": "none"}, {"method": "MAFM", "SSC": "none"}
    corrected = {"method": "FM", "SSC": "1.1 to 1"}

    def judged(worse: dict[str, str], better: dict[str, str]) -> Judgement:
        return judge_share(gains(tables["scores"], worse, better))

    return {
        "mafm_lowers_the_distance": judged(plain, mafm),
        "ssc_lowers_the_distance": judged(plain, corrected),
        "ssc_beats_mafm": judged(mafm, corrected),
    }
