"""VD Figure 4: does SSC need fewer network calls for the same Frechet distance?

`python -m experiments.velocity_deficit.fig04_network_calls budget=smoke|cpu|paper`, with `run=RUN` for a run of your
own, and `redraw=true` to draw again. Writes results/velocity_deficit/fig04_network_calls/BUDGET: network_calls.png,
grid.csv and protocol.json.
"""

from __future__ import annotations

import sys

from experiments.evaluations import distance_in, distance_name, evaluate_grid, interval_in
from experiments.recipes import markdown_table, read_recipe
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.tables import read_csv


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:], takes=("redraw", "run"))
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        evaluate_grid(recipe)
    rows = read_csv(recipe.results / "grid.csv", words=["ssc"])
    distance = distance_in(rows[0])
    names = {"ssc": "SSC", distance: distance_name(distance)}
    figure = plot_curves(rows, "network calls", distance, series="ssc", names=names, band=interval_in(rows[0]))
    save_figure(figure, recipe.results / "network_calls.png")
    print(f"\n{markdown_table(rows)}\nfigure, table and protocol: {recipe.results}")


if __name__ == "__main__":
    main()
