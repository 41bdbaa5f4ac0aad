"""VD Figures 1 (a) and 2: how long is the velocity over sampling, by size and training, and whose is its deficit?

`python -m flowexp.reproduce vd/fig1`. Beside the networks stand the target |v*|, the exact field of the training images
at the same states, which is short by Jensen's inequality alone, and sqrt(1 + mu^2), its length at the noise end for a
mean image of size mu. A second figure has the mean image subtracted, as VD assumes. Bands are one standard deviation
over images, as in VD Figure 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, denied, judge_difference, judge_share, over_seeds
from flowexp.records.figures import plot_curves

VALUES = ["velocity", "velocity_sd", "target", "target_sd", "exact", "exact_sd", "noise", "data", "mean_image",
          "centred", "centred_target", "centred_exact", "ratio", "exact_ratio", "best_scale", "from_exact"]  # fmt: skip
PERCENT = 0.01


def measure(lines: Lines) -> dict[str, Rows]:
    rows = [row for line in lines for row in line.rows("velocity_norms")]
    return {"norms": [{"progress": 1 - row["t"]} | {"step": row.get("step", "")} | row for row in rows]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"norms": draw_norms(tables["norms"]), "norms_centred": draw_centred(tables["norms"])}


def draw_norms(rows: Rows) -> Figure:
    networks = over_seeds(rows, ["method", "step", "progress"], VALUES)
    points = [point(row, network_name(row), row["velocity"], row["velocity_sd"]) for row in networks]
    first = [row for row in networks if (row["method"], row["step"]) == (networks[0]["method"], networks[0]["step"])]
    points += [point(row, "exact field of the training images", row["exact"], row["exact_sd"]) for row in first]
    points += [point(row, "target |v*|", row["target"], row["target_sd"]) for row in first]
    noisiest = min(first, key=lambda row: row["progress"])
    across = {"norm": {"√(1 + μ²)": (noisiest["noise"] ** 2 + noisiest["mean_image"] ** 2) ** 0.5}}
    return _plot(points, "Velocity norms", across)


def draw_centred(rows: Rows) -> Figure:
    """The same with the mean image subtracted from all data: every velocity is moved by the same vector."""
    networks = over_seeds(rows, ["method", "step", "progress"], VALUES)
    first = [row for row in networks if (row["method"], row["step"]) == (networks[0]["method"], networks[0]["step"])]
    points = [point(row, network_name(row), row["centred"]) for row in networks]
    points += [point(row, "exact field of the training images", row["centred_exact"]) for row in first]
    points += [point(row, "target |v*|", row["centred_target"]) for row in first]
    return _plot(points, "Velocity norms, mean image subtracted", {"norm": {"noise norm": first[-1]["noise"]}})


def network_name(row: dict[str, Any]) -> str:
    return f"{row['method']}, {row['step']:,.0f} steps" if row["step"] != "" else str(row["method"])


def point(row: dict[str, Any], line: str, norm: float, spread: float = 0.0) -> dict[str, Any]:
    return {"progress": row["progress"], "line": line, "norm": norm, "low": norm - spread, "high": norm + spread}


def _plot(points: Rows, title: str, across: dict[str, dict[str, float]]) -> Figure:
    names = {"progress": "progress of sampling, VD's t (0 = noise)", "norm": "norm / √d", "line": ""}
    band = ("low", "high")
    return plot_curves(points, "progress", "norm", "line", names, title, band=band, across=across, size=(6.5, 4.2))


def summarise(tables: dict[str, Rows]) -> Rows:
    """Every network at both ends and in the middle."""
    rows = over_seeds(tables["norms"], ["method", "step", "progress"], VALUES)
    places = sorted({row["progress"] for row in rows})
    shown = (places[0], places[len(places) // 2], places[-1])
    return [
        {"network": network_name(row), "progress": row["progress"], "|v|": row["velocity"], "exact |v|": row["exact"],
         "|v*|": row["target"], "|v| / |v*|": row["ratio"], "exact / |v*|": row["exact_ratio"],
         "|v| / exact": row["velocity"] / row["exact"], "best scale": row["best_scale"], "seeds": row["seeds"]}
        for row in rows if row["progress"] in shown
    ]  # fmt: skip


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["norms"]
    steps = sorted({row["step"] for row in rows})
    methods = [*dict.fromkeys(row["method"] for row in rows)]
    last = [row for row in rows if (row["method"], row["step"]) == (methods[0], steps[-1])]
    earlier = [row for row in rows if (row["method"], row["step"]) == (methods[0], steps[max(0, len(steps) - 2)])]
    narrow = [row for row in rows if (row["method"], row["step"]) == (methods[-1], steps[-1])]
    noise, data = (pick(row["progress"] for row in last) for pick in (min, max))
    curve = over_seeds(last, ["progress"], ["velocity"])
    peak = max(curve, key=lambda row: row["velocity"])["progress"]
    rise = [high / low - 1 for high, low in zip(_at(last, peak), _at(last, noise), strict=True)]
    longer = [of / _mean_length(narrow)[0] - 1 for of in _mean_length(last)]
    trained = [after / before - 1 for after, before in zip(_mean_length(last), _mean_length(earlier), strict=True)]
    ratio = _at(last, noise, lambda row: 1 - row["velocity"] / row["exact"])
    return {
        "deficit_at_noise": judge_share(_at(last, noise, lambda row: row["deficit"]), 2 * PERCENT),
        "deficit_at_data": judge_share(_at(last, data, lambda row: row["deficit"]), 2 * PERCENT),
        "networks_deficit_at_noise": judge_share(ratio, PERCENT),
        "monotonic_decay": denied(judge_difference(rise, PERCENT, " % of rise on the way", 100)),
        "larger_is_longer": judge_share(longer if len(methods) > 1 else [], PERCENT),
        "longer_training_is_not_longer": denied(judge_difference(trained, PERCENT, " % longer", 100)),
    }


def _at(rows: Rows, progress: float, value: Callable[[dict[str, Any]], float] | None = None) -> list[float]:
    """A value of each seed at one level; the length of the velocity by default."""
    chosen = sorted((row for row in rows if row["progress"] == progress), key=lambda row: row.get("seed", 0))
    return [row["velocity"] if value is None else value(row) for row in chosen]


def _mean_length(rows: Rows) -> list[float]:
    """The mean over levels of the length, of each seed."""
    seeds = sorted({row.get("seed", 0) for row in rows})
    of = [[row["velocity"] for row in rows if row.get("seed", 0) == seed] for seed in seeds]
    return [sum(lengths) / len(lengths) for lengths in of]
