"""VD Figure 8's shapes of SSC's scale over the noise level, as conf/ssc sets them, with the controls of Table 5.

`python -m flowexp.reproduce vd/fig08` trains nothing. The distances of Table 7 are those of `vd/table7`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from flowexp.cli.composing import config_folder
from flowexp.cli.recipes import Judgement, Lines, Rows
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.time import progress
from flowexp.records.figures import plot_curves

SUM = 1.05  # mean of 1.1 to 1


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


def means(rows: Rows) -> dict[str, float]:
    """The mean of every schedule over sampling, by the rule of trapezoids on its even levels."""
    names = dict.fromkeys(row["schedule"] for row in rows)
    curves = {name: [row["scale"] for row in rows if row["schedule"] == name] for name in names}
    return {name: (sum(of) - (of[0] + of[-1]) / 2) / (len(of) - 1) for name, of in curves.items()}


def summarise(tables: dict[str, Rows]) -> Rows:
    return [{"schedule": name, "mean over sampling": mean} for name, mean in means(tables["schedules"]).items()]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    of = means(tables["schedules"])
    worst = max(of, key=lambda name: abs(of[name] - SUM))
    state = "supported" if abs(of[worst] - SUM) < 1e-3 * SUM else "refuted"
    return {"equal_sums": Judgement(state, f"{worst} is farthest, {of[worst]:.5f}")}  # type: ignore[arg-type]
