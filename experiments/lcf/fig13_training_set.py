"""LCF Figure 13: do FM's features degrade near clean data only where it was trained on many images?

`python -m flowexp.reproduce lcf/fig13`: every network is probed with the same images.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, dips
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"probe": [{"trained on": row.pop("method"), **row} for line in lines for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy"}
    return {"probe": plot_curves(tables["probe"], "t", "accuracy", series="trained on", names=names, log_x=True)}


def summarise(tables: dict[str, Rows]) -> Rows:
    return dips(tables["probe"], {"trained on": "trained on"})
