"""LCF Figure 8's laws of the training time: densities of the logit-normal for several m, beside the uniform one.

`python -m experiments.lcf.fig08_time_densities` writes results/lcf/fig08_time_densities/BUDGET: densities.png and .csv.
The FIDs of the figure come from `+experiment=cifar10_logit_normal -m time_sampler.m=-0.5,0,0.5`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from experiments.recipes import draw_lines, read_recipe
from flowexp.flow.time_samplers import create_time_sampler


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    of = recipe.settings
    draw_lines(
        recipe, "densities", lambda: densities(of.laws, of.num_points), "density", "law", "density of the training time"
    )


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
