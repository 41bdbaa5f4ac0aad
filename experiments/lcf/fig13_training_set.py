"""LCF Figure 13: do FM's features degrade near clean data only where it was trained on many images?

`python -m experiments.lcf.fig13_training_set budget=smoke|cpu|paper`, and `redraw=true` to draw again.
Writes results/lcf/fig13_training_set/BUDGET: probe.png, probe.csv, table.md and protocol.json.
"""

from __future__ import annotations

import sys

from experiments.lcf.dips import dips
from experiments.recipes import (
    Recipe,
    markdown_table,
    measured_rows,
    measurement_of,
    read_recipe,
    run_of,
    write_protocol,
)
from flowexp.records import atomic
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.tables import read_csv, write_csv


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        measure(recipe)
    rows = read_csv(recipe.results / "probe.csv", words=["trained on"])
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy"}
    figure = plot_curves(rows, "t", "accuracy", series="trained on", names=names, log_x=True)
    save_figure(figure, recipe.results / "probe.png")
    table = markdown_table(dips(rows, {"trained on": "trained on"}))
    atomic.write_text(recipe.results / "table.md", table)
    print(f"\n{table}\nfigure, table, CSV and protocol: {recipe.results}")


def measure(recipe: Recipe) -> None:
    """Trains what is not trained yet, and probes every network with the same images."""
    settings = recipe.settings
    runs = {label: run_of([*overrides, *settings.shared]) for label, overrides in settings.lines.items()}
    probes = {label: measurement_of(run, "diagnose", settings.measured) for label, run in runs.items()}
    rows = [{"trained on": label, **row} for label, probe in probes.items() for row in measured_rows(probe, "probe")]
    write_csv(recipe.results / "probe.csv", rows)
    write_protocol(recipe, runs, probes)


if __name__ == "__main__":
    main()
