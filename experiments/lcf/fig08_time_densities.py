"""LCF Figure 8's laws of the training time: densities of the logit-normal for several m, beside the uniform one.

`python -m experiments.lcf.fig08_time_densities` writes results/lcf/fig08_time_densities/BUDGET: densities.png and .csv.
The FIDs of the figure come from `+experiment=cifar10_logit_normal -m time_sampler.m=-0.5,0,0.5`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from experiments.recipes import read_recipe
from flowexp.figures import plot_curves, save_figure
from flowexp.tables import read_csv, write_csv
from flowexp.time_samplers import create_time_sampler


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    table = recipe.results / "densities.csv"
    if not recipe.redraw:
        write_csv(table, densities(recipe.settings.laws, recipe.settings.num_points))
    names = {"t": "noise level t", "density": "density of the training time"}
    save_figure(plot_curves(read_csv(table), "t", "density", series="law", names=names), table.with_suffix(".png"))
    print(f"the densities: {table.with_suffix('.png')} (and .csv)")


def densities(laws: Any, num_points: int) -> list[dict[str, Any]]:
    """Every law's density at `num_points` noise levels inside (0, 1)."""
    t = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    rows = []
    for law, options in laws.items():
        density = create_time_sampler(**options).density(t)
        rows += [{"law": law, "t": at, "density": of} for at, of in zip(t.tolist(), density.tolist(), strict=True)]
    return rows


if __name__ == "__main__":
    main()
