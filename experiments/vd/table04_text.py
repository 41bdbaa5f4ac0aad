"""VD Tables 4 and 12: does SSC help text-to-image generation, by guidance, over seeds of the samples?

`python -m flowexp.reproduce vd/table4` (or table12): mean and spread over VD's seeds 0, 42 and 123 of the samples,
of one network. On a CPU the captions are the names of Fashion-MNIST's classes.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Printed,
    Rows,
    compare_scores,
    gains,
    judge_share,
    plot_cells,
    published,
)

SCALES = {"FM": "none", "SSC": "1.1 to 1"}

KEYS = ("CFG", "SSC")  # what tells its lines apart
PLAIN = {"SSC": "none"}  # the baseline of each cell


def sampled(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores with the seed of the samples as the seed that tables average over; one network is trained by default."""
    seed = 1000 * scores.get("seed", 0) + scores["sample seed"]
    return {**{column: value for column, value in scores.items() if column != "sample seed"}, "seed": seed}


def measure(lines: Lines) -> dict[str, Rows]:
    return {"scores": [sampled(line.scores()) for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"text": plot_cells(tables["scores"], KEYS, "SSC on an MMDiT, 50 network calls", PLAIN, printed())}


def printed() -> Printed:
    paper = {(row["cfg"], SCALES[row["method"]]): row["mean"] for row in published("vd", "table12")}
    return Printed(paper, "MS-COCO, mean of three seeds")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["scores"], KEYS, PLAIN, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    def gained(cfg: float) -> list[float]:
        plain, corrected = ({"CFG": cfg, "SSC": scale} for scale in SCALES.values())
        return gains(tables["scores"], plain, corrected)

    return {
        "ssc_helps_text_to_image": judge_share(gained(2.0)),
        "ssc_harms_under_strong_guidance": judge_share([-share for share in gained(4.0)]),
    }
