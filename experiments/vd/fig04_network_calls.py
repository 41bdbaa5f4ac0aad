"""VD Figure 4: does SSC need fewer network calls for the same Frechet distance?

`python -m flowexp.reproduce vd/fig04`, with `run=RUN` for a run of your own.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, distance_in, distance_name, interval_in
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"grid": [line.scores() for line in lines]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = tables["grid"]
    distance = distance_in(rows[0])
    names = {"ssc": "SSC", distance: distance_name(distance)}
    return {
        "network_calls": plot_curves(
            rows, "network calls", distance, series="ssc", names=names, band=interval_in(rows[0])
        )
    }


def summarise(tables: dict[str, Rows]) -> Rows:
    return tables["grid"]
