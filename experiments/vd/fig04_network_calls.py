"""VD Figure 4: does SSC need fewer network calls for the same Frechet distance?

`python -m flowexp.reproduce vd/fig04`, with `run=RUN` for a run of your own. A figure for each sampler: VD's
Euler-Maruyama, and Euler; a line for each scale, of samples of the same noise.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Printed,
    Rows,
    by_seed,
    compare_scores,
    distance_in,
    distance_name,
    gains,
    judge_share,
    published,
    with_band,
)
from flowexp.records.figures import plot_curves

CALLS = "network calls"
RELATIVE = "relative to no scale at 50 calls"
MATTERS = 0.02  # of the distance: the smallest gain that counts


def measure(lines: Lines) -> dict[str, Rows]:
    return {"grid": [line.scores() for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    samplers = dict.fromkeys(row["sampler"] for row in tables["grid"])
    return {name.lower().replace("-", "_"): draw_sampler(tables["grid"], name) for name in samplers}


def draw_sampler(rows: Rows, sampler: str) -> Figure:
    """The distance over network calls, a line for each scale; bands are the spread over seeds.

    Beside it relative to no scale at 50 calls, with the paper's FIDs, which are of other features, relative to its own.
    """
    own = [row for row in rows if row["sampler"] == sampler]
    distance = distance_in(own[0])
    plain = by_seed(own, distance, **{"SSC": "none", CALLS: 50})
    points = with_band(own, ["SSC", CALLS], distance)
    if plain:
        shares = [{**row, RELATIVE: row[distance] / plain[row.get("seed", 0)]} for row in own]
        points += with_band(shares, ["SSC", CALLS], RELATIVE) + printed_shares(sampler)
    names = {"SSC": "scale of the velocity", distance: distance_name(distance)}
    panels = [distance, RELATIVE] if plain else distance
    return plot_curves(points, CALLS, panels, "SSC", names, sampler, band=("low", "high"))


def printed_shares(sampler: str) -> Rows:
    """The paper's FIDs relative to its own without a scale at 50 calls."""
    paper = printed()
    plain = paper.fids.get((sampler, "none", 50))
    return [
        {"SSC": f"{scale}, the paper", CALLS: calls, RELATIVE: fid / plain, "low": fid / plain, "high": fid / plain}
        for (of, scale, calls), fid in paper.fids.items()
        if plain and fid and of == sampler
    ]


def printed() -> Printed:
    fid = published("vd", "fig4")["fid"]
    fids = {
        ("Euler-Maruyama", "none", 50): fid["fm_nfe50"],
        ("Euler-Maruyama", "1.1 to 1", 50): fid["ssc_nfe50"],
        ("Euler-Maruyama", "none", 250): fid["fm_nfe250"],
    }
    return Printed(fids, "SiT-XL/2, 7M steps")


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["grid"], ["sampler", "SSC", CALLS], {"SSC": "none"}, printed())


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
