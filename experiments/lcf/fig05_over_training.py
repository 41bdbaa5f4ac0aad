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
from flowexp.figures import plot_curves, save_figure
from flowexp.tables import read_csv, write_csv

CURVE = {"panel": "data", "method": "method", "step": "training step"}  # what tells a probe's curve from another


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        measure(recipe)
    distances, probes = (read_csv(recipe.results / f"{name}.csv") for name in ("distances", "probe"))
    for panel in dict.fromkeys(row["panel"] for row in probes):
        draw(recipe, panel, *([row for row in rows if row["panel"] == panel] for rows in (distances, probes)))
    table = markdown_table(dips(probes, CURVE))
    (recipe.results / "table.md").write_text(table)
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


def draw(recipe: Recipe, panel: str, distances: list[dict[str, Any]], probes: list[dict[str, Any]]) -> None:
    """A dataset's distances (Figure 5), and each method's probe curves (Figure 12)."""
    distance = distance_in(distances[0])
    names = {"step": "training step", distance: distance_name(distance)}
    figure = plot_curves(distances, "step", distance, series="method", names=names, title=panel)
    save_figure(figure, recipe.results / f"{panel}_distance.png")

    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy", "step": "training steps"}
    for method in dict.fromkeys(row["method"] for row in probes):
        own = [row | {"step": f"{row['step']:,.0f}"} for row in probes if row["method"] == method]
        figure = plot_curves(own, "t", "accuracy", series="step", names=names, title=f"{panel}, {method}", log_x=True)
        save_figure(figure, recipe.results / f"{panel}_probe_{method}.png")


if __name__ == "__main__":
    main()
