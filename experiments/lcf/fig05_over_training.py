"""LCF Figures 5 and 12: does LCF reach a Frechet distance sooner, and when do FM's features begin to degrade?

`python -m experiments.lcf.fig05_over_training budget=smoke|cpu|paper`, and `redraw=true` to draw again.
Writes results/lcf/fig05_over_training/BUDGET: distances and a probe figure per method as PNG, distances.csv, probe.csv,
table.md and protocol.json.
"""

from __future__ import annotations

import sys

from experiments.evaluations import distance_in, distance_name
from experiments.lcf.dips import dips
from experiments.recipes import (
    Recipe,
    markdown_table,
    measured_over_steps,
    read_recipe,
    run_of,
    scores_over_steps,
    write_protocol,
)
from flowexp.figures import plot_curves, save_figure
from flowexp.tables import read_csv, write_csv


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        measure(recipe)
    draw(recipe)
    table = dips(read_csv(recipe.results / "probe.csv"), {"method": "method", "step": "training step"})
    (recipe.results / "table.md").write_text(markdown_table(table))
    print(f"\n{markdown_table(table)}\nfigures, table, CSV and protocol: {recipe.results}")


def measure(recipe: Recipe) -> None:
    """Trains what is not trained yet, and gathers what was measured on the way."""
    lines = {label: [*overrides, *recipe.settings.shared] for label, overrides in recipe.settings.lines.items()}
    runs = {label: run_of(overrides) for label, overrides in lines.items()}
    distances = [{"method": label, **row} for label, run in runs.items() for row in scores_over_steps(run)]
    probes = [
        {"method": label, "step": step, **row}
        for label, run in runs.items()
        for step, rows in measured_over_steps(run, "probe").items()
        for row in rows
    ]
    write_csv(recipe.results / "distances.csv", distances)
    write_csv(recipe.results / "probe.csv", probes)
    write_protocol(recipe, runs)


def draw(recipe: Recipe) -> None:
    """The distances of all methods (Figure 5), and each one's probe curves (Figure 12)."""
    rows = read_csv(recipe.results / "distances.csv")
    distance = distance_in(rows[0])
    names = {"step": "training step", distance: distance_name(distance)}
    save_figure(plot_curves(rows, "step", distance, series="method", names=names), recipe.results / "distances.png")

    rows = read_csv(recipe.results / "probe.csv")
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy", "step": "training steps"}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row | {"step": f"{row['step']:,.0f}"} for row in rows if row["method"] == method]
        figure = plot_curves(own, "t", "accuracy", series="step", names=names, title=method, log_x=True)
        save_figure(figure, recipe.results / f"probe_{method}.png")


if __name__ == "__main__":
    main()
