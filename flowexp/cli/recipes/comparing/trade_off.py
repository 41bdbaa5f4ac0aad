"""Features against samples: the probe's accuracy of clean images over the Frechet distance, a point for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.comparing.probe_curves import clean_by_seed
from flowexp.cli.recipes.comparing.tables import Row
from flowexp.records.figures import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Distances = Mapping[str, Mapping[Any, float]]  # of each seed, by method


def plot_trade_off(probe: Sequence[Row], samples: Mapping[str, Distances], distance: str) -> Figure:
    """Accuracy of the converged probe at the cleanest level over the distance; pale points are seeds, large ones means.

    Arguments:
        probe: the table of the probe.
        samples: the distances, for each way of sampling. The first way's means are filled, the others' hollow, and a
            thin line joins those of one method.
        distance: the name of its axis. Best is up and to the left.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    methods = [method for method in dict.fromkeys(row["method"] for row in probe) if clean_by_seed(probe, method)]
    for place, method in enumerate(methods):
        ways = [[*of[method].values()] for of in samples.values() if of.get(method)]
        _draw_method(axes, place, method, clean_by_seed(probe, method), ways)
    for number, way in enumerate(samples if len(samples) > 1 else ()):
        axes.plot([], [], "o", color="0.3", markerfacecolor="white" if number else "0.3", label=way)
    axes.set(xlabel=distance, ylabel="accuracy at the cleanest level, converged probe")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _draw_method(axes: Axes, place: int, method: str, clean: Sequence[float], ways: Sequence[Sequence[float]]) -> None:
    """One method's points. ways: its distances in the order of the seeds, for each way of sampling."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    for number, distances in enumerate(ways):
        axes.plot(distances, clean, marker, color=colour, alpha=0.3, markersize=4)
        face, label = ("white", None) if number else (colour, method)
        axes.plot(mean(distances), mean(clean), marker, color=colour, markerfacecolor=face, markersize=8, label=label)
    axes.plot([mean(distances) for distances in ways], [mean(clean)] * len(ways), color=colour, linewidth=0.8)
