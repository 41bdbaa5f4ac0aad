"""VD Figure 8's shapes of SSC's scale over the noise level, as conf/ssc sets them, with the controls of Table 5.

`python -m flowexp.reproduce vd/fig08` trains nothing. The FIDs of Table 7 come from
`python -m flowexp.evaluate -m run=RUN ssc=linear,cosine,quad_in,quad_out`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from flowexp.cli.composing import config_folder
from flowexp.cli.recipes import Lines, Rows
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.time import progress
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"schedules": scales(lines.settings.schedules, lines.settings.num_points)}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    names = {"t": "noise level t", "scale": "scale of the velocity"}
    return {"schedules": plot_curves(tables["schedules"], "t", "scale", series="schedule", names=names)}


def scales(schedules: Sequence[str], num_points: int) -> Rows:
    """Every schedule's scale at `num_points` noise levels from 0 to 1; a schedule is a file of conf/ssc."""
    t = torch.linspace(0, 1, num_points, dtype=torch.float64)
    rows = []
    for name in schedules:
        ssc = OmegaConf.load(config_folder() / "ssc" / f"{name}.yaml")
        scale = scale_schedule(ssc.profile, ssc.s0, ssc.s1)(progress(t))
        rows += [{"schedule": name, "t": at, "scale": of} for at, of in zip(t.tolist(), scale.tolist(), strict=True)]
    return rows
