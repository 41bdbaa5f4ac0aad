"""VD Figure 8's shapes of SSC's scale over the noise level, as conf/ssc sets them, with the controls of Table 5.

`python -m experiments.velocity_deficit.fig08_schedules` writes results/velocity_deficit/fig08_schedules/BUDGET:
schedules.png and .csv. The FIDs of Table 7 come from `evaluate -m run=RUN ssc=linear,cosine,quad_in,quad_out`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import OmegaConf

from experiments.recipes import draw_lines, read_recipe
from flowexp.cli.composing import config_folder
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.time import progress


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    of = recipe.settings
    draw_lines(
        recipe, "schedules", lambda: scales(of.schedules, of.num_points), "scale", "schedule", "scale of the velocity"
    )


def scales(schedules: Sequence[str], num_points: int) -> list[dict[str, Any]]:
    """Every schedule's scale at `num_points` noise levels from 0 to 1; a schedule is a file of conf/ssc."""
    t = torch.linspace(0, 1, num_points, dtype=torch.float64)
    rows = []
    for name in schedules:
        ssc = OmegaConf.load(config_folder() / "ssc" / f"{name}.yaml")
        scale = scale_schedule(ssc.profile, ssc.s0, ssc.s1)(progress(t))
        rows += [{"schedule": name, "t": at, "scale": of} for at, of in zip(t.tolist(), scale.tolist(), strict=True)]
    return rows


if __name__ == "__main__":
    main()
