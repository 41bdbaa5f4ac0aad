"""VD Table 3: do MAFM and SSC help networks that REPA trained, at 256 x 256 and at 512 x 512?

`python -m flowexp.reproduce vd/table3`.
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

CELLS = {"REPA": ("REPA", "none"), "MAFM": ("MAFM", "none"), "SSC": ("REPA", "1.1 to 1")}

KEYS = ("panel", "method", "SSC")  # what tells its lines apart
PLAIN = {"method": "REPA", "SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {
        "repa": plot_cells(tables["scores"], KEYS, "REPA with MAFM and SSC, 50 network calls", PLAIN, printed(tables))
    }


def printed(tables: dict[str, Rows]) -> Printed:
    sized = "panel" in tables["scores"][0]
    paper = {
        (f"{row['model']}, {row['res']}", *CELLS[row["method"]]) if sized else CELLS[row["method"]]: row["fid"]
        for row in published("vd", "table3")
        if sized or (row["model"], row["res"]) == ("SiT-B/2", 256)
    }
    return Printed(paper, "400,000 steps" if sized else "SiT-B/2, 400,000 steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed(tables))


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    repa = {"method": "REPA", "SSC": "none"}
    return {
        "mafm_helps_repa": judge_share(gains(tables["scores"], repa, repa | {"method": "MAFM"})),
        "ssc_helps_repa": judge_share(gains(tables["scores"], repa, repa | {"SSC": "1.1 to 1"})),
    }
