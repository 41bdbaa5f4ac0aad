"""Scores of samples that recipes compare: the same network sampled in several ways, and networks trained in several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from flowexp.cli.recipes.comparing.distances import shares_saved
from flowexp.cli.recipes.comparing.tables import by_seed, distance_in, over_seeds, spread_in
from flowexp.cli.recipes.lines import Lines, Rows
from flowexp.records.score_name import ScoreName

Row = Mapping[str, Any]
Cell = tuple[Any, ...]  # the values of the columns that tell it from others
SCORES = ("frechet", "sfid", "inception_score", "precision", "recall", "nearest_neighbour")  # a table's, in this order


@dataclass(frozen=True)
class Printed:
    """A paper's FIDs of the cells of a table.

    Arguments:
        fids: by cell; those that it does not print are missing, or None.
        of: of which networks, such as "SiT-XL/2, 7M steps".
    """

    fids: Mapping[Cell, float | None]
    of: str

    def gain(self, cell: Cell, plain: Cell) -> float | None:
        """By which share the paper's FID of `cell` lies below that of `plain`; None where it does not print both."""
        before, after = self.fids.get(plain), self.fids.get(cell)
        return 1 - after / before if before and after and cell != plain else None


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
    rows: Sequence[Row], keys: Sequence[str], plain: Row, paper: Printed | None = None
) -> list[dict[str, Any]]:
    """A table of cells: scores averaged over seeds, the distance's spread, the gain against plain, the paper's number.

    Arguments:
        rows: a row of scores for each cell and seed.
        keys: the columns that tell cells apart; those that a smaller budget lacks are passed over.
        plain: those of `keys` whose values make a cell's baseline: `{"SSC": "none"}` compares with no SSC, all else
            equal. A cell without baseline, and the baseline itself, has no gain.
        paper: its FIDs by the values of `keys`.
    """
    scores, table = score_columns(rows), []
    keys, distance = present(keys, rows), scores[0]
    for row in over_seeds(rows, keys, scores):
        cell = {key: row[key] for key in keys}
        lowered = gains_of(cell, plain, rows)
        table.append(
            cell
            | {score: row.get(score) for score in scores}
            | {"spread": spread_in(row, distance)}
            | {"lower by, %": 100 * mean(lowered) if lowered else None}
            | {"standard error": 100 * stdev(lowered) / math.sqrt(len(lowered)) if len(lowered) > 1 else None}
            | {"seeds": row["seeds"]}
            | ({} if paper is None else {f"the paper's FID, {paper.of}": paper.fids.get(tuple(cell.values()))})
        )
    return table


def gains_of(cell: Row, plain: Row, rows: Sequence[Row]) -> list[float]:
    """`gains` of a cell against its own baseline, see `compare_scores`; none for the baseline itself."""
    differs = any(cell[key] != value for key, value in plain.items())
    return gains(rows, {**cell, **plain}, cell) if differs else []


def present(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Those of the columns that a table has."""
    return [column for column in columns if column in rows[0]]
