"""LCF Figures 5 and 12: does LCF reach a Frechet distance sooner, and when do FM's features begin to degrade?

`python -m flowexp.reproduce lcf/fig05`: for each dataset a figure of the distances, and one of each method's probe
curves.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, dips, distance_in, distance_name
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {
        "distances": [row for line in lines for row in line.scores_over_steps()],
        "probe": [row for line in lines for row in line.rows_over_steps("probe")],
    }


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    curves = dict.fromkeys((row["panel"], row["method"]) for row in tables["probe"])
    probes = {f"{panel}_probe_{method}": draw_probes(tables["probe"], panel, method) for panel, method in curves}
    return probes | {f"{panel}_distance": draw_distances(tables["distances"], panel) for panel, _ in curves}


def draw_distances(rows: Rows, panel: str) -> Figure:
    """Figure 5 of one dataset: a line per method."""
    lines = [row for row in rows if row["panel"] == panel]
    distance = distance_in(lines[0])
    names = {"step": "training step", distance: distance_name(distance)}
    return plot_curves(lines, "step", distance, series="method", names=names, title=panel)


def draw_probes(rows: Rows, panel: str, method: str) -> Figure:
    """Figure 12 of one dataset and method: a curve per step."""
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy", "step": "training steps"}
    curves = [row | {"step": f"{row['step']:,.0f}"} for row in rows if (row["panel"], row["method"]) == (panel, method)]
    return plot_curves(curves, "t", "accuracy", series="step", names=names, title=f"{panel}, {method}", log_x=True)


def summarise(tables: dict[str, Rows]) -> Rows:
    return dips(tables["probe"], {"panel": "data", "method": "method", "step": "training step"})
