"""Frechet distances of several methods over training, with seeds: their table, their picture and their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.comparing.tables import Row, by_seed, distance_in, distance_name, over_seeds
from flowexp.cli.recipes.lines import Lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def distances_over_epochs(lines: Lines) -> list[dict[str, Any]]:
    """The scores of lines whose grid has a `step`, with the training epochs of that step."""
    return [{**line.columns, "epoch": line.epochs(line.columns["step"]), **line.scores()} for line in lines]


def plot_distances(rows: Sequence[Row], title: str = "") -> Figure:
    """A line for each method over training epochs; bands are the spread over seeds."""
    from flowexp.records.figures import plot_curves

    distance = distance_in(rows[0])
    points = over_seeds(rows, ["method", "epoch"], [distance])
    names = {"epoch": "training epoch", distance: distance_name(distance), "method": ""}
    return plot_curves(points, "epoch", distance, "method", names, title, band=(f"{distance}_low", f"{distance}_high"))


def last_distances(rows: Sequence[Row], method: str) -> dict[Any, float]:
    """The distance of each seed at the last checkpoint; empty where the method was not measured."""
    return by_seed(rows, distance_in(rows[0]), method=method, step=max(row["step"] for row in rows)) if rows else {}


def shares_saved(before: Mapping[Any, float], after: Mapping[Any, float]) -> list[float]:
    """By which share `after` lies below `before`, of each seed that both have."""
    return [1 - after[seed] / before[seed] for seed in before if seed in after]
