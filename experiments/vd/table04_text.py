"""VD Tables 4 and 12: does SSC help text-to-image generation, by guidance, over seeds of the samples?

`python -m flowexp.reproduce vd/table4` (or table12): mean and spread over VD's seeds 0, 42 and 123 of the samples,
of one network, or over `seeds` trainings. On a CPU the captions are the names of Fashion-MNIST's classes.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Printed,
    Rows,
    compare_scores,
    gains,
    judge_share,
    over_seeds,
    plot_cells,
    published,
    score_columns,
)

SCALES = {"FM": "none", "SSC": "1.1 to 1"}

SAMPLES = "sample seed"
KEYS = ("CFG", "SSC")  # what tells its lines apart
PLAIN = {"SSC": "none"}  # the baseline of each cell


def measure(lines: Lines) -> dict[str, Rows]:
    return {"scores": over_samples([line.scores() for line in lines])}


def over_samples(rows: Rows) -> Rows:
    """Rows whose `seed` is what tables average over: of one network that of its samples, else that of the training.

    Of several trainings each is first averaged over the seeds of its samples, which are no further trainings.
    """
    if len({row.get("seed", 0) for row in rows}) == 1:
        return [{**{key: row[key] for key in row if key != SAMPLES}, "seed": row[SAMPLES]} for row in rows]
    scores = score_columns(rows)
    keys = [key for key in rows[0] if key not in (SAMPLES, *scores)]
    return [{key: row[key] for key in (*keys, *scores)} for row in over_seeds(rows, keys, scores)]


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
