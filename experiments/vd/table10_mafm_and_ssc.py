"""VD Table 10: does SSC on top of MAFM overshoot?

`python -m flowexp.reproduce vd/table10`: lambda of MAFM by SSC's s0, the experiment that VD's Table 10 is a corner of.
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
CELLS = {
    "FM": ("FM", "none"), "MAFM": ("MAFM", "none"), "SSC": ("FM", "1.1 to 1"),
    "MAFM+SSC (strong)": ("MAFM", "1.1 to 1"), "MAFM+SSC (moderate)": ("MAFM", "1.05 to 1"),
}  # fmt: skip

KEYS = ("panel", "method", "SSC")  # what tells its lines apart
PLAIN = {"method": "FM", "SSC": "none"}  # the baseline of each cell

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {
        "mafm_and_ssc": plot_cells(tables["scores"], KEYS, "MAFM with SSC, 50 network calls", PLAIN, printed(tables))
    }


def printed(tables: dict[str, Rows]) -> Printed:
    rows = tables["scores"]
    sized = "panel" in rows[0]
    paper = {
        (row["model"], *CELLS[row["method"]]) if sized else CELLS[row["method"]]: row["fid"]
        for row in published("vd", "table10")
        if sized or row["model"] == MODEL
    }
    scale = "400,000 steps" if sized else f"{MODEL}, 400,000 steps"
    return Printed(paper, scale)


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed(tables))


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    def judged(worse: tuple[str, str], better: tuple[str, str], matters: float = 0.01) -> Judgement:
        plain, other = (dict(zip(("method", "SSC"), cell, strict=True)) for cell in (worse, better))
        return judge_share(gains(tables["scores"], plain, other), matters)

    return {
        "mafm_alone": judged(("FM", "none"), ("MAFM, lambda 1", "none"), 0.02),
        "strong_ssc_overshoots": judged(("MAFM", "1.1 to 1"), ("FM", "1.1 to 1")),
        "moderate_beats_strong": judged(("MAFM", "1.1 to 1"), ("MAFM", "1.05 to 1")),
    }
