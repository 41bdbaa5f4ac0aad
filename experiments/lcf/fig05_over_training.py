"""LCF Figures 5 and 12: does LCF reach a Frechet distance sooner, and when do FM's features begin to degrade?

`python -m experiments.lcf.fig05_over_training budget=smoke|cpu|paper`, and `redraw=true` to draw again.
Writes results/lcf/fig05_over_training/BUDGET: for each dataset a figure of the distances and one of each method's
probe curves, distances.csv, probe.csv, table.md and protocol.json.
"""

from __future__ import annotations

import sys
from typing import Any

from experiments.evaluations import distance_in, distance_name
from experiments.lcf.dips import dips
from experiments.recipes import (
    Recipe,
    markdown_table,
    measured_over_steps,
    panel_lines,
    read_recipe,
    run_of,
    scores_over_steps,
    write_protocol,
)
from flowexp.records import atomic
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.tables import read_csv, write_csv

CURVE = {"panel": "data", "method": "method", "step": "training step"}  # what tells a probe's curve from another


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        measure(recipe)
    distances, probes = (read_csv(recipe.results / f"{name}.csv") for name in ("distances", "probe"))
    for panel in dict.fromkeys(row["panel"] for row in probes):
        draw_distances(recipe, panel, [row for row in distances if row["panel"] == panel])
        draw_probes(recipe, panel, [row for row in probes if row["panel"] == panel])
    table = markdown_table(dips(probes, CURVE))
    atomic.write_text(recipe.results / "table.md", table)
    print(f"\n{table}\nfigures, table, CSV and protocol: {recipe.results}")


def measure(recipe: Recipe) -> None:
    """Trains what is not trained yet, and gathers what was measured on the way."""
    runs = {line: run_of(overrides) for line, overrides in panel_lines(recipe).items()}
    distances, probes = [], []
    for (panel, label), run in runs.items():
        own = {"panel": panel, "method": label}
        distances += [own | row for row in scores_over_steps(run)]
        probes += [
            own | {"step": step} | row for step, rows in measured_over_steps(run, "probe").items() for row in rows
        ]
    write_csv(recipe.results / "distances.csv", distances)
    write_csv(recipe.results / "probe.csv", probes)
    write_protocol(recipe, {", ".join(line): run for line, run in runs.items()})


def draw_distances(recipe: Recipe, panel: str, rows: list[dict[str, Any]]) -> None:
    """Figure 5 of one dataset: a line per method."""
    distance = distance_in(rows[0])
    names = {"step": "training step", distance: distance_name(distance)}
    figure = plot_curves(rows, "step", distance, series="method", names=names, title=panel)
    save_figure(figure, recipe.results / f"{panel}_distance.png")


def draw_probes(recipe: Recipe, panel: str, rows: list[dict[str, Any]]) -> None:
    """Figure 12 of one dataset: a picture per method, in it a curve per step."""
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy", "step": "training steps"}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row | {"step": f"{row['step']:,.0f}"} for row in rows if row["method"] == method]
        figure = plot_curves(own, "t", "accuracy", series="step", names=names, title=f"{panel}, {method}", log_x=True)
        save_figure(figure, recipe.results / f"{panel}_probe_{method}.png")


if __name__ == "__main__":
    main()
