"""LCF Figure 4: do features of nearly clean images lose classes in FM, and does LCF keep them?

`make reproduce-fig4`, or `python -m flowexp.reproduce lcf/fig04`. A figure for each dataset: a panel for each reading
of the probe, a line for each method, dashed ones for the same probe on raw pixels and on a frozen encoder's features.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, baselines_in, judge_difference, network_rows, over_seeds
from flowexp.measuring.callbacks.probe import READING_NAMES
from flowexp.records.figures import plot_curves

POINT = 0.01  # of accuracy: the smallest dip that counts


def measure(lines: Lines) -> dict[str, Rows]:
    return {"curve": [row for line in lines for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    panels = dict.fromkeys(row["panel"] for row in tables["curve"])
    return {panel: draw_panel([row for row in tables["curve"] if row["panel"] == panel], panel) for panel in panels}


def draw_panel(rows: Rows, panel: str) -> Figure:
    """All readings of one dataset, at each method's best tap by that reading; bands are the spread over seeds."""
    readings = [*dict.fromkeys(row["reading"] for row in rows)]
    points = [
        {"t": 1000 * row["t"], "line": row["method"], reading: row["accuracy"],
         "low": row["accuracy_low"], "high": row["accuracy_high"]}
        for reading in readings
        for row in over_seeds(at_best_taps(rows, reading), ["method", "t"], ["accuracy"])
    ]  # fmt: skip
    names = {"t": "time step T of 1000", "line": "", **{each: f"accuracy, {READING_NAMES[each]}" for each in readings}}
    across = {each: baselines_in(rows, each) for each in readings}
    return plot_curves(points, "t", readings, "line", names, panel, band=("low", "high"), across=across)


def at_best_taps(rows: Rows, reading: str) -> Rows:
    """The network's rows of one reading, for each method at the tap whose accuracy is best over levels and seeds."""
    own = network_rows(rows, reading)
    best: dict[str, dict[str, Any]] = {}
    for row in over_seeds(own, ["method", "tap", "t"], ["accuracy"]):
        if row["accuracy"] > best.get(row["method"], row)["accuracy"] or row["method"] not in best:
            best[row["method"]] = row
    return [row for row in own if row["tap"] == best[row["method"]]["tap"]]


def dips_by_seed(rows: Rows, method: str, reading: str = "converged") -> list[float]:
    """The dip of each seed: the accuracy at the level where the mean over seeds peaks, less that at the cleanest."""
    curve = [row for row in at_best_taps(rows, reading) if row["method"] == method]
    peak = max(over_seeds(curve, ["t"], ["accuracy"]), key=lambda row: row["accuracy"])["t"]
    cleanest = min(row["t"] for row in curve)
    seeds = dict.fromkeys(row.get("seed", 0) for row in curve)
    at = {(row.get("seed", 0), row["t"]): row["accuracy"] for row in curve}
    return [at[seed, peak] - at[seed, cleanest] for seed in seeds]


def clean_by_seed(rows: Rows, method: str, reading: str = "converged") -> list[float]:
    """The accuracy at the cleanest level, of each seed."""
    curve = [row for row in at_best_taps(rows, reading) if row["method"] == method]
    cleanest = min(row["t"] for row in curve)
    return [row["accuracy"] for row in curve if row["t"] == cleanest]


def summarise(tables: dict[str, Rows]) -> Rows:
    table = []
    for panel in dict.fromkeys(row["panel"] for row in tables["curve"]):
        rows = [row for row in tables["curve"] if row["panel"] == panel]
        for reading in dict.fromkeys(row["reading"] for row in rows):
            for method in dict.fromkeys(row["method"] for row in rows):
                table.append({"data": panel, **summary(rows, method, reading), **baselines_in(rows, reading)})
    return table


def summary(rows: Rows, method: str, reading: str) -> dict[str, object]:
    """One curve in numbers, averaged over seeds."""
    curve = [row for row in at_best_taps(rows, reading) if row["method"] == method]
    points = over_seeds(curve, ["t"], ["accuracy"])
    peak, cleanest = max(points, key=lambda row: row["accuracy"]), min(points, key=lambda row: row["t"])
    dips = over_seeds([{"dip": dip} for dip in dips_by_seed(rows, method, reading)], [], ["dip"])[0]
    return {
        "reading": READING_NAMES[reading], "method": method, "block": curve[0]["tap"], "peak": peak["accuracy"],
        "T at the peak": round(1000 * peak["t"]), "at the cleanest level": cleanest["accuracy"],
        "dip": dips["dip"], "its spread over seeds": (dips["dip_high"] - dips["dip_low"]) / 2,
    }  # fmt: skip


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    panel = tables["curve"][0]["panel"]
    rows = [row for row in tables["curve"] if row["panel"] == panel]
    gains = [lcf - fm for lcf, fm in zip(clean_by_seed(rows, "LCF"), clean_by_seed(rows, "FM"), strict=True)]
    less = [fm - lcf for fm, lcf in zip(dips_by_seed(rows, "FM"), dips_by_seed(rows, "LCF"), strict=True)]
    return {
        "dip": judge_difference(dips_by_seed(rows, "FM"), POINT, " points", 100),
        "dip_of_the_papers_probe": judge_difference(dips_by_seed(rows, "FM", "paper"), POINT, " points", 100),
        "lcf_removes_the_dip": judge_difference(less, POINT, " points", 100),
        "lcf_has_better_clean_features": judge_difference(gains, POINT, " points", 100),
    }
