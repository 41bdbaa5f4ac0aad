"""Scores of samples that recipes compare: the same network sampled in several ways, and networks trained in several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from flowexp.cli.recipes.tables import by_seed, distance_in, over_seeds
from flowexp.records.score_name import ScoreName

Row = Mapping[str, Any]
SCORES = ("frechet", "sfid", "inception_score", "precision", "recall", "nearest_neighbour")  # a table's, in this order


def score_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that are scores of samples, the Frechet distance first."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [column for score in SCORES for column in columns if ScoreName.of(column).score == score]


def gains(rows: Sequence[Row], plain: Row, other: Row, score: str | None = None) -> list[float]:
    """By which share the cell `other` lowers a score of the cell `plain`, of each seed that has both.

    plain, other: the columns that pick a cell, one row of each seed. score: None is the Frechet distance.
    """
    column = score or distance_in(rows[0])
    before, after = (by_seed(rows, column, **dict(cell)) for cell in (plain, other))
    return [1 - after[seed] / before[seed] for seed in before if seed in after]


def compare_scores(
    rows: Sequence[Row],
    keys: Sequence[str],
    plain: Row,
    paper: Mapping[tuple[Any, ...], Any] | None = None,
) -> list[dict[str, Any]]:
    """A table of cells: scores averaged over seeds, the distance's spread, the gain against plain, the paper's number.

    Arguments:
        rows: a row of scores for each cell and seed.
        keys: the columns that tell cells apart.
        plain: those of `keys` whose values make a cell's baseline: `{"SSC": "none"}` compares with no SSC, all else
            equal. A cell without baseline, and the baseline itself, has no gain.
        paper: what the paper prints for a cell, by its values of `keys`.
    """
    scores, table = score_columns(rows), []
    distance = scores[0]
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
            | ({} if paper is None else {"paper": paper.get(tuple(cell.values()))})
        )
    return table
