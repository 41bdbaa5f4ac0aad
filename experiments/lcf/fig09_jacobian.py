"""LCF Figure 9 and Proposition 5: is the encoder's Jacobian bounded, and does it move from classes to noise?

`make reproduce-lcf-fig9`, or `make reproduce-lcf-prop5`. The norm over noise levels and epochs; G_sem and G_noise over
the noise level, and their ratio, which knows nothing of the features' length.
"""

from __future__ import annotations

from statistics import mean

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, denied, judge_difference, over_seeds
from flowexp.records.figures import plot_curves

NEAR, FAR = 0.0, 0.3  # the levels compared, or the nearest that were measured
NAMES = {
    "T": "time step T of 1000",
    "epoch": "training epochs",
    "frobenius": "|J|, Frobenius",
    "g_sem": "G_sem, gain along class means",
    "g_noise": "G_noise, along other directions",
    "ratio": "G_sem / G_noise",
    "line": "",
}


def measure(lines: Lines) -> dict[str, Rows]:
    rows = [
        {**row, "epoch": line.epochs(line.columns["step"])}
        for line in lines.of("mean")
        for row in line.rows("jacobian")
    ]
    return {"jacobian": rows, "all_tokens": [row for line in lines.of("flatten") for row in line.rows("jacobian")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = [{**row, "T": 1000 * row["t"]} for row in tables["jacobian"]]
    figures = {f"norm_{method}": draw_norm(rows, method) for method in dict.fromkeys(row["method"] for row in rows)}
    return figures | {"gains": draw_gains(at_the_end(rows)), "gains_all_tokens": draw_gains(tables["all_tokens"])}


def draw_norm(rows: Rows, method: str) -> Figure:
    """Figure 9: |J| over the noise level, a line for each checkpoint."""
    points = over_seeds([row for row in rows if row["method"] == method], ["epoch", "T"], ["frobenius"])
    points = [{**row, "epoch": f"{row['epoch']:.3g}"} for row in sorted(points, key=lambda row: row["epoch"])]
    return plot_curves(points, "T", "frobenius", "epoch", NAMES, method, band=("frobenius_low", "frobenius_high"))


def draw_gains(rows: Rows) -> Figure:
    """G_sem and G_noise over the noise level, and their ratio, a line for each method."""
    points = over_seeds([{**row, "T": 1000 * row["t"]} for row in rows], ["method", "T"], ["g_sem", "g_noise", "ratio"])
    lines = [{**row, "line": row["method"]} for row in points]
    return plot_curves(lines, "T", ["g_sem", "g_noise", "ratio"], "line", NAMES, log_y=True)


def at_the_end(rows: Rows) -> Rows:
    """The rows of the last checkpoint."""
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last]


def change(rows: Rows, method: str, value: str) -> list[float]:
    """Of each seed, `value` at the level nearest to NEAR over that at the one nearest to FAR."""
    own = [row for row in rows if row["method"] == method]
    seeds = dict.fromkeys(row.get("seed", 0) for row in own)
    return [_at(own, seed, NEAR, value) / _at(own, seed, FAR, value) for seed in seeds]


def _at(rows: Rows, seed: int, level: float, value: str) -> float:
    own = [row for row in rows if row.get("seed", 0) == seed]
    return float(min(own, key=lambda row: abs(row["t"] - level))[value])


def spread_over_training(rows: Rows, method: str) -> list[float]:
    """Of each seed, the largest over the smallest |J| of all checkpoints, averaged over levels."""
    own = [row for row in rows if row["method"] == method]
    levels = dict.fromkeys(row["t"] for row in own)
    spreads = []
    for seed in dict.fromkeys(row.get("seed", 0) for row in own):
        by_level = [[row["frobenius"] for row in own if (row.get("seed", 0), row["t"]) == (seed, t)] for t in levels]
        spreads.append(mean(max(norms) / min(norms) for norms in by_level))
    return spreads


def summarise(tables: dict[str, Rows]) -> Rows:
    table = []
    for features, rows in (("mean token", at_the_end(tables["jacobian"])), ("all tokens", tables["all_tokens"])):
        for method in dict.fromkeys(row["method"] for row in rows):
            changes = {
                f"{NAMES[value]}: cleanest level over T = 300": mean(change(rows, method, value))
                for value in ("g_sem", "g_noise", "ratio")
            }
            table.append({"method": method, "features": features, **changes})
    return table


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    end, tokens = at_the_end(tables["jacobian"]), tables["all_tokens"]
    gains = zip(change(end, "LCF", "ratio"), change(end, "FM", "ratio"), strict=False)
    bounded = [spread - 1 for spread in spread_over_training(tables["jacobian"], "FM")]
    return {
        "bounded_over_training": denied(judge_difference(bounded, 1.0)),
        "noise_gain_rises": judge_difference([value - 1 for value in change(end, "FM", "g_noise")], 0.1),
        "semantic_gain_does_not": denied(judge_difference([value - 1 for value in change(end, "FM", "g_sem")], 0.1)),
        "share_reallocated": judge_difference([1 - value for value in change(end, "FM", "ratio")], 0.1),
        "share_reallocated_of_all_tokens": judge_difference(
            [1 - value for value in change(tokens, "FM", "ratio")], 0.1
        ),
        "lcf_prevents_it": judge_difference([lcf - fm for lcf, fm in gains], 0.1),
    }
