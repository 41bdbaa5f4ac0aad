"""LCF Figure 4: does LCF keep the features of nearly clean images readable where FM loses them?

`make reproduce-fig4`, or `python -m flowexp.reproduce lcf/fig04`: a figure per dataset, and a table of the dips.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, dips
from flowexp.records.figures import plot_curves


def measure(lines: Lines) -> dict[str, Rows]:
    return {"curve": [row for line in lines for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy"}
    panels = dict.fromkeys(row["panel"] for row in tables["curve"])
    return {
        panel: plot_curves(
            [row for row in tables["curve"] if row["panel"] == panel],
            "t", "accuracy", series="method", names=names, title=panel, log_x=True,
        )
        for panel in panels
    }  # fmt: skip


def summarise(tables: dict[str, Rows]) -> Rows:
    return dips(tables["curve"], {"panel": "data", "method": "method"})
