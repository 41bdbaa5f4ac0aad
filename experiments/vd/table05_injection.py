"""VD Table 5: is a scale of the velocity early in sampling better than a late or a constant one?

`python -m flowexp.reproduce vd/table5`, with `run=RUN` for a run of your own; VD's sampler beside Euler on the ODE.
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

KEYS = ["sampler", "SSC"]
PLAIN = {"SSC": "none"}  # the baseline of each cell
NAMES = {(1.0, 1.0): "none", (1.1, 1.0): "1.1 to 1", (1.0, 1.1): "1 to 1.1", (1.05, 1.05): "constant 1.05"}

measure = measure_scores


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {
        "injection": plot_cells(tables["scores"], KEYS, "Scales of the velocity, 50 network calls", PLAIN, printed())
    }


def printed() -> Printed:
    paper = {("Euler-Maruyama", NAMES[row["s0"], row["s1"]]): row["fid"] for row in published("vd", "table5")}
    return Printed(paper, "SiT-XL/2, 7M steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    def early_against(other: str, matters: float) -> Judgement:
        plain, early = ({"sampler": "Euler-Maruyama", "SSC": scale} for scale in (other, "1.1 to 1"))
        return judge_share(gains(tables["scores"], plain, early), matters)

    return {
        "early_gains": early_against("none", 0.02),
        "early_beats_late": early_against("1 to 1.1", 0.02),
        "early_beats_constant": early_against("constant 1.05", 0.01),
    }
