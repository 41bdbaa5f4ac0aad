"""LCF Figure 1: is FM's loss largest, and slowest to fall, where data are nearly clean, and do features suffer there?

`make reproduce-lcf-fig1`. Panels as the paper has them: (a) loss over t, (b) loss over training for some t, (c) probe.
"""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    dips_by_seed,
    judge_difference,
    judge_points,
    over_seeds,
    plot_probes,
    summarise_probes,
)
from flowexp.records.figures import plot_curves

SHOWN = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.99)  # levels of panel b, or the nearest that were measured
LOSS = "velocity error, |v - v*|² / d"


def measure(lines: Lines) -> dict[str, Rows]:
    loss = [
        {**row, "epoch": line.epochs(row["step"])}
        for line in lines.of("loss")
        for row in line.rows("noise_levels")
        if row["split"] == "test"
    ]
    return {"loss": loss, "probe": [row for line in lines.of("probe") for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = [{**row, "T": 1000 * row["t"]} for row in tables["loss"]]
    last = over_seeds([row for row in rows if row["step"] == _ends(rows)[1]], ["T"], ["loss"])
    levels = sorted({row["t"] for row in rows})
    shown = {min(levels, key=lambda level: abs(level - t)) for t in SHOWN}
    lines = over_seeds([row for row in rows if row["t"] in shown], ["epoch", "T"], ["loss"])
    lines = [{**row, "T": f"{row['T']:g}"} for row in sorted(lines, key=lambda row: row["T"])]
    names = {"T": "time step T of 1000", "epoch": "training epoch", "loss": LOSS}
    return {
        "a_loss_over_t": plot_curves(last, "T", "loss", names=names, band=("loss_low", "loss_high")),
        "b_loss_over_training": plot_curves(
            lines, "epoch", "loss", "T", names, log_y=True, band=("loss_low", "loss_high")
        ),
        "c_probe": plot_probes(tables["probe"]),
    }


def summarise(tables: dict[str, Rows]) -> Rows:
    return summarise_probes(tables["probe"])


def _ends(rows: Rows) -> tuple[int, int]:
    steps = [row["step"] for row in rows]
    return min(steps), max(steps)


def losses_by_seed(rows: Rows) -> list[dict[str, dict[float, float]]]:
    """For each seed the losses by level, at the first and at the last checkpoint."""
    ends = dict(zip(("first", "last"), _ends(rows), strict=True))
    return [
        {
            end: {row["t"]: row["loss"] for row in rows if (row.get("seed", 0), row["step"]) == (seed, step)}
            for end, step in ends.items()
        }
        for seed in dict.fromkeys(row.get("seed", 0) for row in rows)
    ]


def low_share(losses: dict[float, float]) -> float:
    """Share of the loss below t = 0.1 in the loss of all levels."""
    return sum(loss for t, loss in losses.items() if t < 0.1) / math.fsum(losses.values())


def fall(seed: dict[str, dict[float, float]], near: float) -> float:
    """Share by which the loss at the level nearest to `near` falls from the first checkpoint to the last."""
    t = min(seed["last"], key=lambda level: abs(level - near))
    return 1 - seed["last"][t] / seed["first"][t]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    seeds = losses_by_seed(tables["loss"])
    last = [seed["last"] for seed in seeds]
    excess = [losses[min(losses)] - max(loss for t, loss in losses.items() if t >= 0.5) for losses in last]
    slower = [fall(seed, 0.49) - fall(seed, 0.01) for seed in seeds]
    dominates = [low_share(seed["last"]) - low_share(seed["first"]) for seed in seeds]
    return {
        "ill_posed_objective": judge_difference(excess, 0.02, " in |v - v*|² / d"),
        "slow_at_low_noise": judge_points(slower, 0.05),
        "bottleneck": judge_points(dominates),
        "degraded_features": judge_points(dips_by_seed(tables["probe"], "FM")),
    }
