"""SSC's proposal beside its controls: one table and one plot of the differences in Fréchet distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowexp.flow.sampler import Sampler
from flowexp.measuring.diagnostics import ControlledSampler, SamplerScore
from flowexp.records.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
# Colour, marker and its filling: distinct in print and to the colour-blind too.
BETTER, WORSE, UNSURE = (COLOURS[0], "o", COLOURS[0]), (COLOURS[1], "s", COLOURS[1]), ("0.45", "o", "white")
SIZE = (4.8, 0.34)  # inches of a panel: its width, and its height for each scale


def score_row(score: SamplerScore[ControlledSampler], sampler: Sampler) -> Row:
    """A sampler's row of the table."""
    return {
        **vars(score.sampler),
        "s0": sampler.s0,
        "s1": sampler.s1,
        "profile": sampler.protocol()["profile"],
        "distance": score.distance,
        "difference": score.difference,
        "low": score.low,
        "high": score.high,
        "better": score.better,
    }


def plot_differences(rows: list[Row]) -> Figure:
    """A panel for each solver (down) and number of steps (across); left of zero is better than without SSC."""
    from matplotlib.figure import Figure

    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    steps = list(dict.fromkeys(row["num_steps"] for row in rows))
    scales = list(dict.fromkeys(row["scale"] for row in rows))
    height = SIZE[1] * len(scales) + 1
    figure = Figure(figsize=(SIZE[0] * len(steps) + 1.2, height * len(solvers)), dpi=150, layout="constrained")
    grid = figure.subplots(len(solvers), len(steps), squeeze=False, sharey=True)
    for solver, across in zip(solvers, grid, strict=True):
        for num_steps, axes in zip(steps, across, strict=True):
            _draw(axes, [row for row in rows if (row["solver"], row["num_steps"]) == (solver, num_steps)])
            axes.set_title(f"{solver.replace('_', '-')}, {num_steps} steps", loc="left", fontsize="medium")
    figure.supxlabel("Fréchet distance − that without SSC (left is better); bars are 95 % intervals", fontsize="medium")
    return figure


def _draw(axes: Axes, rows: list[Row]) -> None:
    for place, row in enumerate(rows):
        colour, marker, filling = BETTER if row["high"] < 0 else WORSE if row["low"] > 0 else UNSURE
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8)
        axes.plot(row["difference"], place, marker, color=colour, markerfacecolor=filling, markersize=5)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [scale_words(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    axes.spines[["top", "right"]].set_visible(False)


def scale_words(row: Mapping[str, Any]) -> str:
    """What a scale is called beside its interval, with its numbers."""
    s0, s1 = f"{row['s0']:.4g}", f"{row['s1']:.4g}"
    words = {
        "plain": "without SSC",
        "vd": f"VD's {s0} → {s1}",
        "late": f"late, {s0} → {s1}",
        "mean": f"constant {s0}, its mean",
        "proposal": f"proposal {s0} → {s1}, {str(row['profile']).replace('_', ' ')}",
    }
    return words.get(row["scale"], str(row["scale"]).replace("_", " "))
