"""Cells of a table in a picture: their distances, and their gains beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.claims import STANDARD_ERRORS
from flowexp.cli.recipes.comparing.scores import Printed, gains_of, present
from flowexp.cli.recipes.comparing.tables import Row, by_seed, distance_in, distance_name
from flowexp.records.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_cells(
    rows: Sequence[Row], keys: Sequence[str], title: str = "", plain: Row | None = None, paper: Printed | None = None
) -> Figure:
    """The Frechet distance of every cell, one below another, and by how much it is lower than its baseline's.

    Pale points are seeds, large ones their means; bars are 2 standard errors over seeds. The paper's points stand
    beside ours where both are shares, since its FID is of other features.

    keys, plain, paper: as in `compare_scores`; without `plain` the distances alone.
    """
    from matplotlib.figure import Figure

    keys, distance = present(keys, rows), distance_in(rows[0])
    cells = list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))
    panels = 1 if plain is None else 2
    figure = Figure(figsize=(4 + 3 * panels, 0.3 * len(cells) + 1.6), dpi=150, layout="constrained")
    first, *second = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    for place, cell in enumerate(cells):
        _draw_seeds(first, place, [*by_seed(rows, distance, **dict(zip(keys, cell, strict=True))).values()])
    first.set_yticks(range(len(cells)), [", ".join(_told(part) for part in cell) for cell in cells])
    first.set_ylim(len(cells) - 0.5, -0.5)  # the first cell on top
    first.set_xlabel(f"{distance_name(distance)}\n(a point for each seed; the mean)")
    if plain is not None:
        _draw_gains(second[0], [dict(zip(keys, cell, strict=True)) for cell in cells], plain, rows, paper)
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize="small")
    for axes in figure.axes:
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def _draw_gains(axes: Axes, cells: Sequence[Row], plain: Row, rows: Sequence[Row], paper: Printed | None) -> None:
    """By how many percent each cell's distance is lower than its baseline's, and the paper's FID."""
    for place, cell in enumerate(cells):
        lowered = [100 * share for share in gains_of(cell, plain, rows)]
        if len(lowered) > 1:
            error = STANDARD_ERRORS * stdev(lowered) / math.sqrt(len(lowered))
            axes.plot([mean(lowered) - error, mean(lowered) + error], [place] * 2, color=COLOURS[0], linewidth=1.4)
        if lowered:
            _draw_seeds(axes, place, lowered)
        theirs = paper.gain(tuple(cell.values()), tuple({**cell, **plain}.values())) if paper else None
        if theirs is not None:
            axes.plot(100 * theirs, place, "s", color=COLOURS[1], markerfacecolor="white", markersize=6)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel(f"lower than with {_words(plain)}, %\n(bars: {STANDARD_ERRORS:g} standard errors over seeds)")
    axes.plot([], [], "D", color=COLOURS[0], markersize=5, label="here")
    if paper is not None:
        axes.plot([], [], "s", color=COLOURS[1], markerfacecolor="white", label=f"the paper's FID, {paper.of}")


def _draw_seeds(axes: Axes, place: int, values: Sequence[float]) -> None:
    axes.plot(values, [place] * len(values), "o", color=COLOURS[0], alpha=0.35, markersize=4)
    axes.plot(mean(values), place, "D", color=COLOURS[0], markersize=5)


def _told(part: Any) -> str:
    return f"{part:g}" if isinstance(part, float) else str(part)


def _words(plain: Row) -> str:
    """`no SSC` of {"SSC": "none"}; a method needs no column's name."""
    said = [
        f"no {key}" if value == "none" else str(value) if key == "method" else f"{key} {value}"
        for key, value in plain.items()
    ]
    return ", ".join(said)
