"""LCF Proposition 3: does the gradient gather at low noise while the loss there falls slowly?

`make reproduce-lcf-prop3`. The Hessian of the proposition is not measured: its condition number is infinite for every
network that has more parameters than it needs.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, judge_points, over_seeds
from flowexp.records.figures import plot_curves

LOW = 0.1  # noise levels up to here are low


def measure(lines: Lines) -> dict[str, Rows]:
    return {
        "gradient": [
            {**row, "epoch": line.epochs(line.columns["step"])} for line in lines for row in line.rows("gradient_share")
        ]
    }


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = [{**row, "T": 1000 * row["t"]} for row in tables["gradient"]]
    points = over_seeds(rows, ["epoch", "T"], ["share", "loss"])
    lines = [{**row, "epoch": f"{row['epoch']:.3g}"} for row in sorted(points, key=lambda row: row["epoch"])]
    names = {"T": "time step T of 1000", "epoch": "training epochs", "share": "share of the gradient, |g| / Σ|g|"}
    names["loss"] = "velocity error, |v - v*|² / d"
    return {"gradient": plot_curves(lines, "T", ["share", "loss"], "epoch", names)}


def seeds_of(rows: Rows) -> list[Rows]:
    """The rows of each seed."""
    seeds = dict.fromkeys(row.get("seed", 0) for row in rows)
    return [[row for row in rows if row.get("seed", 0) == seed] for seed in seeds]


def low_share(rows: Rows, step: int) -> float:
    """Share of the gradient's norm at low levels, of one seed at one checkpoint."""
    return float(sum(row["share"] for row in rows if row["step"] == step and row["t"] <= LOW))


def fall(rows: Rows, near: float) -> float:
    """Share by which one seed's loss at the level nearest to `near` falls from the first checkpoint to the last."""
    t = min((row["t"] for row in rows), key=lambda level: abs(level - near))
    losses = {row["step"]: row["loss"] for row in rows if row["t"] == t}
    return float(1 - losses[max(losses)] / losses[min(losses)])


def summarise(tables: dict[str, Rows]) -> Rows:
    rows = tables["gradient"]
    table = []
    for step in sorted({row["step"] for row in rows}):
        shares = [low_share(seed, step) for seed in seeds_of(rows)]
        epoch = next(row["epoch"] for row in rows if row["step"] == step)
        table.append({"epoch": epoch, f"share of levels up to T = {1000 * LOW:g}": sum(shares) / len(shares)})
    return table


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["gradient"]
    steps, levels = [row["step"] for row in rows], {row["t"] for row in rows}
    first, last, part = min(steps), max(steps), sum(level <= LOW for level in levels) / len(levels)
    seeds = seeds_of(rows)
    grows = [low_share(seed, last) - low_share(seed, first) for seed in seeds]
    more = [low_share(seed, last) - part for seed in seeds]
    slower = [fall(seed, 0.5) - fall(seed, 0.0) for seed in seeds]
    return {
        "low_noise_takes_the_gradient": judge_points(grows),
        "more_than_its_levels": judge_points(more),
        "slower_at_low_noise": judge_points(slower, 0.05),
    }
