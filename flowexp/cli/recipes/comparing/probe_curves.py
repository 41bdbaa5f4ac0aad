"""Probe curves of several methods, readings and seeds: each at its best block, its dip, and one picture of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.comparing.tables import Row, baselines_in, network_rows, over_seeds, spread_in
from flowexp.measuring.diagnostics.verdict import READING_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def at_best_taps(rows: Sequence[Row], reading: str = "converged") -> list[dict[str, Any]]:
    """The network's rows of one reading, for each method at the tap whose accuracy is best over levels and seeds."""
    own = network_rows(rows, reading)
    best: dict[str, dict[str, Any]] = {}
    for row in over_seeds(own, ["method", "tap", "t"], ["accuracy"]):
        if row["accuracy"] > best.get(row["method"], {"accuracy": -1.0})["accuracy"]:
            best[row["method"]] = row
    return [row for row in own if row["tap"] == best[row["method"]]["tap"]]


def curve_of(rows: Sequence[Row], method: str, reading: str = "converged") -> list[dict[str, Any]]:
    """The points of one method's curve, all seeds of them; none where the method or the reading was not measured."""
    return [row for row in at_best_taps(rows, reading) if row["method"] == method]


def dips_by_seed(rows: Sequence[Row], method: str, reading: str = "converged") -> list[float]:
    """The dip of each seed: the accuracy at the level where the mean over seeds peaks, less that at the cleanest."""
    curve = curve_of(rows, method, reading)
    if not curve:
        return []
    peak = max(over_seeds(curve, ["t"], ["accuracy"]), key=lambda row: row["accuracy"])["t"]
    return [high - low for high, low in zip(_at(curve, peak), _at(curve, min(row["t"] for row in curve)), strict=True)]


def clean_by_seed(rows: Sequence[Row], method: str, reading: str = "converged") -> list[float]:
    """The accuracy at the cleanest level, of each seed."""
    curve = curve_of(rows, method, reading)
    return _at(curve, min(row["t"] for row in curve)) if curve else []


def peaks_by_seed(rows: Sequence[Row], method: str, reading: str = "converged") -> list[float]:
    """The accuracy at the level where the mean over seeds peaks, of each seed."""
    curve = curve_of(rows, method, reading)
    points = over_seeds(curve, ["t"], ["accuracy"])
    return _at(curve, max(points, key=lambda row: row["accuracy"])["t"]) if curve else []


def _at(curve: Sequence[Row], t: float) -> list[float]:
    return [row["accuracy"] for row in curve if row["t"] == t]


def plot_probes(rows: Sequence[Row], title: str = "", series: str = "") -> Figure:
    """A panel for each reading over the papers' time step, a line for each method at its best tap.

    Dashed lines are the same probe on raw pixels and on a frozen encoder's features; bands are the spread over seeds.
    series: what the lines are, above the legend.
    """
    from flowexp.records.figures import plot_curves

    readings = [*dict.fromkeys(str(row["reading"]) for row in rows)]
    points = [
        {"t": 1000 * row["t"], "line": row["method"], reading: row["accuracy"],
         "low": row["accuracy_low"], "high": row["accuracy_high"]}
        for reading in readings
        for row in over_seeds(at_best_taps(rows, reading), ["method", "t"], ["accuracy"])
    ]  # fmt: skip
    names = {"t": "time step T of 1000", "line": series}
    names |= {each: f"accuracy, {READING_NAMES[each]}" for each in readings}
    across = {each: baselines_in(rows, each) for each in readings}
    return plot_curves(points, "t", readings, "line", names, title, band=("low", "high"), across=across)


def summarise_probes(rows: Sequence[Row], reading: str = "converged") -> list[dict[str, Any]]:
    """A row for each method: peak, accuracy at the cleanest level and the dip between, averaged over seeds.

    A column for each baseline, such as raw pixels, has what the same probe reads off that. `gradient left` is the
    largest share of its gradient that a fit of the curve has left: of a probe that has converged next to nothing.
    """
    table, baselines = [], baselines_in(rows, reading)
    for method in dict.fromkeys(row["method"] for row in at_best_taps(rows, reading)):
        points = over_seeds(curve_of(rows, method, reading), ["t"], ["accuracy"])
        peak, cleanest = max(points, key=lambda row: row["accuracy"]), min(points, key=lambda row: row["t"])
        left = [row["gradient_left"] for row in curve_of(rows, method, reading)]
        (dip,) = over_seeds([{"dip": dip} for dip in dips_by_seed(rows, method, reading)], [], ["dip"])
        table.append({
            "method": method, "reading": READING_NAMES[reading], "block": curve_of(rows, method, reading)[0]["tap"],
            "peak": peak["accuracy"], "T at the peak": round(1000 * peak["t"]), "clean": cleanest["accuracy"],
            "dip": dip["dip"], "its spread over seeds": spread_in(dip, "dip"),
            "gradient left": max((share for share in left if isinstance(share, float)), default=None), **baselines,
        })  # fmt: skip
    return table
