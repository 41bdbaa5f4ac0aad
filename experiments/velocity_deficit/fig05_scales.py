"""VD Figure 5: which scales of the velocity, s0 at noise and s1 at data, give which samples?

`python -m experiments.velocity_deficit.fig05_scales budget=smoke|cpu|paper`, with `run=RUN` for a run of your own, and
`redraw=true` to draw the map again. Writes results/velocity_deficit/fig05_scales/BUDGET: distances.png (a map over s0
and s1), samples.png (the same noise at every cell), grid.csv and protocol.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.evaluations import Cell, distance_in, distance_name, evaluate_grid
from experiments.recipes import markdown_table, measured_picture, read_recipe
from flowexp.records.figures import draw_map, save_figure
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import read_csv

S0, S1 = "sampler.s0", "sampler.s1"


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:], takes=("redraw", "run"))
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        draw_samples(evaluate_grid(recipe), recipe.results / "samples.png")
    rows = read_csv(recipe.results / "grid.csv")
    distance = distance_in(rows[0])
    distances = {(row[S1], row[S0]): row[distance] for row in rows}
    draw_distances(distances, distance_name(distance), recipe.results / "distances.png")
    print(f"\n{markdown_table(rows)}\nmap, samples, table and protocol: {recipe.results}")


def draw_distances(distances: dict[tuple[float, float], float], name: str, path: Path) -> None:
    """The distance of each cell (s1, s0), as a colour and a number."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    draw_map(axes, distances, name, min(distances.values()), max(distances.values()), numbers=True)
    axes.set(xlabel="s1, at data", ylabel="s0, at noise")
    save_figure(figure, path)


def draw_samples(evaluated: Sequence[tuple[Cell, RunFolder]], path: Path) -> None:
    """The sample grid of each cell, s0 down and s1 across."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    down, across = ([*dict.fromkeys(cell[key] for cell, _ in evaluated)] for key in (S0, S1))
    figure = Figure(figsize=(2 * len(across), 2.2 * len(down)), dpi=150, layout="constrained")
    panels = figure.subplots(len(down), len(across), squeeze=False)
    for cell, evaluation in evaluated:
        axes = panels[down.index(cell[S0])][across.index(cell[S1])]
        axes.imshow(imread(measured_picture(evaluation, "samples")))
        axes.set_title(f"s0 = {cell[S0]:g}, s1 = {cell[S1]:g}", fontsize="small")
        axes.set_axis_off()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
