"""Scores of samples that recipes compare: the same network sampled in several ways, and networks trained in several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.distances import shares_saved
from flowexp.cli.recipes.lines import Lines, Rows
from flowexp.cli.recipes.tables import by_seed, distance_in, distance_name, over_seeds
from flowexp.records.score_name import ScoreName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCORES = ("frechet", "sfid", "inception_score", "precision", "recall", "nearest_neighbour")  # a table's, in this order


def score_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that are scores of samples, the Frechet distance first."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [column for score in SCORES for column in columns if ScoreName.of(column).score == score]


def measure_scores(lines: Lines) -> dict[str, Rows]:
    """The table `scores`: a row for each line, with the numbers that were measured of its samples."""
    return {"scores": [line.scores() for line in lines]}


def gains(rows: Sequence[Row], plain: Row, other: Row, score: str | None = None) -> list[float]:
    """By which share the cell `other` lowers a score of the cell `plain`, of each seed that has both.

    plain, other: the columns that pick a cell, one row of each seed. score: None is the Frechet distance.
    """
    column = score or distance_in(rows[0])
    before, after = (by_seed(rows, column, **dict(cell)) for cell in (plain, other))
    return shares_saved(before, after)


def least_gains(rows: Sequence[Row], plain: Row) -> list[float]:
    """`gains` of the cell that gains least by the mean over seeds, of those that differ from `plain` in its one column.

    What all of the cells are said to do is decided by it.
    """
    ((column, value),) = plain.items()
    others = [other for other in dict.fromkeys(row[column] for row in rows) if other != value]
    return min((gains(rows, plain, {column: other}) for other in others), key=lambda shares: mean(shares or [math.inf]))


def compare_scores(
    rows: Sequence[Row],
    keys: Sequence[str],
    plain: Row,
    paper: Mapping[tuple[Any, ...], Any] | None = None,
    paper_scale: str = "",
) -> list[dict[str, Any]]:
    """A table of cells: scores averaged over seeds, the distance's spread, the gain against plain, the paper's number.

    Arguments:
        rows: a row of scores for each cell and seed.
        keys: the columns that tell cells apart; those that a smaller budget lacks are passed over.
        plain: those of `keys` whose values make a cell's baseline: `{"SSC": "none"}` compares with no SSC, all else
            equal. A cell without baseline, and the baseline itself, has no gain.
        paper: the paper's FID of a cell, by its values of `keys`.
        paper_scale: what the paper's numbers are of, such as "SiT-XL/2, 7M steps", for the head of their column.
    """
    scores, table = score_columns(rows), []
    keys, distance = _present(keys, rows), scores[0]
    for row in over_seeds(rows, keys, scores):
        cell = {key: row[key] for key in keys}
        lowered = gains(rows, cell | dict(plain), cell) if any(cell[key] != plain[key] for key in plain) else []
        table.append(
            cell
            | {score: row.get(score) for score in scores}
            | {"spread": (row[f"{distance}_high"] - row[f"{distance}_low"]) / 2}
            | {"lower by, %": 100 * mean(lowered) if lowered else None}
            | {"standard error": 100 * stdev(lowered) / math.sqrt(len(lowered)) if len(lowered) > 1 else None}
            | {"seeds": row["seeds"]}
            | ({} if paper is None else {f"the paper's FID, {paper_scale}": paper.get(tuple(cell.values()))})
        )
    return table


def plot_cells(rows: Sequence[Row], keys: Sequence[str], title: str = "") -> Figure:
    """The Frechet distance of every cell, one below another: a pale point of each seed, and their mean.

    keys: as in `compare_scores`.
    """
    from matplotlib.figure import Figure

    from flowexp.records.figures import COLOURS

    keys, distance = _present(keys, rows), distance_in(rows[0])
    cells = list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))
    figure = Figure(figsize=(6, 0.3 * len(cells) + 1.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(cells):
        values = list(by_seed(rows, distance, **dict(zip(keys, cell, strict=True))).values())
        axes.plot(values, [place] * len(values), "o", color=COLOURS[0], alpha=0.35, markersize=4)
        axes.plot(mean(values), place, "D", color=COLOURS[0], markersize=5)
    axes.set_yticks(range(len(cells)), [", ".join(str(part) for part in cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)  # the first cell on top
    # below the whole figure: below the axes, which long names make narrow, it would be cut off
    figure.supxlabel(f"{distance_name(distance)} (a point for each seed; the mean)", fontsize="medium")
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def _present(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    return [column for column in columns if column in rows[0]]
