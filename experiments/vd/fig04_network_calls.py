"""VD Figure 4: does SSC need fewer network calls for the same Frechet distance?

`python -m flowexp.reproduce vd/fig04`, with `run=RUN` for a run of your own. A figure for each sampler: VD's
Euler-Maruyama, and Euler; a line for each scale, of samples of the same noise.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    compare_scores,
    distance_in,
    distance_name,
    gains,
    judge_share,
    over_seeds,
    published,
)
from flowexp.records.figures import plot_curves

CALLS = "network calls"
MATTERS = 0.02  # of the distance: the smallest gain that counts


def measure(lines: Lines) -> dict[str, Rows]:
    return {"grid": [line.scores() for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    samplers = dict.fromkeys(row["sampler"] for row in tables["grid"])
    return {name.lower().replace("-", "_"): draw_sampler(tables["grid"], name) for name in samplers}


def draw_sampler(rows: Rows, sampler: str) -> Figure:
    """The distance over network calls, a line for each scale; bands are the spread over seeds."""
    distance = distance_in(rows[0])
    points = over_seeds([row for row in rows if row["sampler"] == sampler], ["SSC", CALLS], [distance])
    names = {"SSC": "scale of the velocity", distance: distance_name(distance)}
    band = (f"{distance}_low", f"{distance}_high")
    return plot_curves(points, CALLS, distance, "SSC", names, sampler, band=band)


def summarise(tables: dict[str, Rows]) -> Rows:
    fid = published("vd", "fig4")["fid"]
    paper = {
        ("Euler-Maruyama", "none", 50): fid["fm_nfe50"],
        ("Euler-Maruyama", "1.1 to 1", 50): fid["ssc_nfe50"],
        ("Euler-Maruyama", "none", 250): fid["fm_nfe250"],
    }
    return compare_scores(tables["grid"], ["sampler", "SSC", CALLS], {"SSC": "none"}, paper, "SiT-XL/2, 7M steps")


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    def gain(sampler: str, calls: int, scale: str = "1.1 to 1") -> Judgement:
        """Of `scale` at 50 network calls against no scale at `calls`."""
        plain = {"sampler": sampler, "SSC": "none", CALLS: calls}
        found = gains(tables["grid"], plain, {"sampler": sampler, "SSC": scale, CALLS: 50})
        return judge_share(found, MATTERS)

    return {
        "ssc_gains_at_50": gain("Euler-Maruyama", 50),
        "ssc_gains_at_50_in_the_ode": gain("Euler", 50),
        "fifty_with_ssc_beat_250": gain("Euler-Maruyama", 250),
    }
