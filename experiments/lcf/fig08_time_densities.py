"""LCF Figure 8's laws of the training time: densities of the logit-normal for several m, beside the uniform one.

`python -m flowexp.reproduce lcf/fig08` trains nothing. The FIDs of the figure come from
`python -m flowexp.train -m +experiment=cifar10_logit_normal time_sampler.m=-0.5,0,0.5`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows
from flowexp.flow.time_samplers import create_time_sampler
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"densities": densities(lines.settings.laws, lines.settings.num_points)}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    names = {"t": "noise level t", "density": "density of the training time"}
    return {"densities": plot_curves(tables["densities"], "t", "density", series="law", names=names)}


def densities(laws: Mapping[str, Any], num_points: int) -> Rows:
    """Every law's density at `num_points` noise levels inside (0, 1)."""
    t = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    rows = []
    for law, options in laws.items():
        density = create_time_sampler(**options).density(t)
        rows += [{"law": law, "t": at, "density": of} for at, of in zip(t.tolist(), density.tolist(), strict=True)]
    return rows
