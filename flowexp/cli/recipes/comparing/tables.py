"""Tables that recipes share: of probe curves, of distances, and any rows as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from flowexp.records.score_name import INCEPTION, ScoreName

Row = Mapping[str, Any]


def dips(rows: Sequence[Row], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each probe curve its peak, where that lies, the accuracy at the cleanest level, and the dip between them.

    Arguments:
        rows: `t` and `accuracy`, in long format.
        columns: those that tell one curve from another, and their names in the table.
    """
    table = []
    for values in dict.fromkeys(tuple(row[column] for column in columns) for row in rows):
        curve = [row for row in rows if tuple(row[column] for column in columns) == values]
        peak, cleanest = max(curve, key=lambda row: row["accuracy"]), min(curve, key=lambda row: row["t"])
        table.append(
            {
                **dict(zip(columns.values(), values, strict=True)),
                "peak": peak["accuracy"],
                "t at the peak": peak["t"],
                f"at t = {cleanest['t']:g}": cleanest["accuracy"],
                "dip": peak["accuracy"] - cleanest["accuracy"],
            }
        )
    return table


def network_rows(rows: Sequence[Row], reading: str = "converged") -> list[dict[str, Any]]:
    """The rows of a probe's table that are one reading of the network's features, without the baselines."""
    return [dict(row) for row in rows if row["reading"] == reading and row["features"] == "network"]


def baselines_in(rows: Sequence[Row], reading: str = "converged") -> dict[str, float]:
    """Accuracies of the same probe on other features of the clean images, averaged over seeds, by their name."""
    others = [row for row in rows if row["reading"] == reading and row["features"] != "network"]
    return {str(row["features"]): row["accuracy"] for row in over_seeds(others, ["features"], ["accuracy"])}


def over_seeds(rows: Sequence[Row], keys: Sequence[str], values: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that differ in their seed alone as one: each of `values` averaged, with its spread.

    keys: columns that tell one point of a figure from another. Each value has `VALUE_low` and `VALUE_high` beside it,
    its mean less and plus the standard deviation over seeds, which is 0 of one seed; `seeds` says how many there are.
    """
    table = []
    for place in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        same = [row for row in rows if tuple(row[key] for key in keys) == place]
        averaged: dict[str, Any] = dict(zip(keys, place, strict=True))
        for value in values:
            numbers = [float(row[value]) for row in same if isinstance(row.get(value), int | float)]
            if numbers:
                middle, spread = mean(numbers), stdev(numbers) if len(numbers) > 1 else 0.0
                averaged |= {value: middle, f"{value}_low": middle - spread, f"{value}_high": middle + spread}
        table.append(averaged | {"seeds": len(same)})
    return table


def spread_in(row: Row, value: str) -> float:
    """The standard deviation over seeds of a value of `over_seeds`."""
    return float(row[f"{value}_high"] - row[f"{value}_low"]) / 2


def with_band(rows: Sequence[Row], keys: Sequence[str], value: str) -> list[dict[str, Any]]:
    """`over_seeds` of one value for a picture: the ends of its band are columns `low` and `high`.

    Points without a number have no row.
    """
    points = [row for row in over_seeds(rows, keys, [value]) if value in row]
    return [row | {"low": row[f"{value}_low"], "high": row[f"{value}_high"]} for row in points]


def by_seed(rows: Sequence[Row], value: str, **where: Any) -> dict[Any, float]:
    """A number of each seed, of the rows whose columns are as `where` says; seed 0 where the table has no seeds."""
    return {
        row.get("seed", 0): float(row[value])
        for row in rows
        if all(row.get(column) == wanted for column, wanted in where.items())
    }


def distance_in(row: Row) -> str:
    """The column of a row's Frechet distance: `fid`, or `frechet/ENCODER`."""
    return next(column for column in row if ScoreName.of(column).score == "frechet")


def distance_name(column: str) -> str:
    """The axis label for the column of a Frechet distance: only Inception's is FID."""
    encoder = ScoreName.of(column).encoder
    return "FID" if encoder == INCEPTION else f"Fréchet distance, {encoder}"


def interval_in(row: Row) -> tuple[str, str] | None:
    """The columns of the distance's lower and upper end; None without the metric frechet_interval."""
    ends = tuple(
        str(ScoreName(score, ScoreName.of(distance_in(row)).encoder)) for score in ("frechet_low", "frechet_high")
    )
    return (ends[0], ends[1]) if set(ends) <= set(row) else None
