"""LCF Proposition 1: does the condition number of velocity regression diverge near clean data, in a network too?

`make reproduce-lcf-prop1`. kappa is the root mean square of |v1 - v2| over that of |x1 - x2|, for two noises of one
image: 1 / t for the target on the linear path.
"""

from __future__ import annotations

import math
from statistics import linear_regression

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, by_seed, denied, judge_difference, judge_share, over_seeds
from flowexp.records.figures import plot_curves

KAPPAS = {"noise_target": "target", "noise_network": "network"}


def measure(lines: Lines) -> dict[str, Rows]:
    return {"condition": [row for line in lines for row in line.rows("condition_number")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = [
        {"t": row["t"], "kappa": row[column], "line": _name(row["method"], column), "seed": row.get("seed", 0)}
        for column in KAPPAS
        for row in tables["condition"]
        if column != "noise_target" or row["method"] == "FM"
    ]
    demanded = [{"t": row["t"], "kappa": 1 / row["t"], "line": "1 / t (LCF eq. 6)"} for row in rows]
    points = over_seeds(rows + demanded, ["line", "t"], ["kappa"])
    names = {"t": "noise level t", "kappa": "κ = |Δv| / |Δx|, one image and two noises", "line": ""}
    band = ("kappa_low", "kappa_high")
    return {"condition": plot_curves(points, "t", "kappa", "line", names, log_x=True, log_y=True, band=band)}


def _name(method: str, column: str) -> str:
    return "target" if column == "noise_target" else f"network, {method}"


def slopes(rows: Rows) -> list[float]:
    """The slope of log kappa of the target over log t up to t = 0.1, of each seed."""
    found = []
    for seed in dict.fromkeys(row.get("seed", 0) for row in rows):
        low = [row for row in rows if row.get("seed", 0) == seed and row["method"] == "FM" and row["t"] <= 0.1]
        logs = [[math.log(row[column]) for row in low] for column in ("t", "noise_target")]
        found.append(linear_regression(*logs).slope)
    return found


def cleanest(rows: Rows, method: str, column: str) -> dict[int, float]:
    """A column at the cleanest level, by seed."""
    return by_seed(rows, column, method=method, t=min(row["t"] for row in rows))


def summarise(tables: dict[str, Rows]) -> Rows:
    points = over_seeds(tables["condition"], ["method", "t"], [*KAPPAS, "noise_exact"])
    return [
        {"method": row["method"], "t": row["t"], "1 / t": 1 / row["t"], "target": row["noise_target"],
         "network": row["noise_network"], "network / target": row["noise_network"] / row["noise_target"]}
        for row in points
    ]  # fmt: skip


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["condition"]
    network, target = (cleanest(rows, "FM", column) for column in ("noise_network", "noise_target"))
    lcf = cleanest(rows, "LCF", "noise_network")
    return {
        "demand_diverges": denied(judge_difference([abs(slope + 1) for slope in slopes(rows)], 0.05, " from -1")),
        "network_follows": judge_difference([network[seed] / target[seed] - 0.5 for seed in network], 0.0),
        "lcf_relieves": judge_share([1 - lcf[seed] / network[seed] for seed in lcf], 0.1),
    }
