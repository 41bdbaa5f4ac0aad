"""LCF Figures 14 and 15: samples of FM, left, and of LCF, right, from the same noise.

`make reproduce-lcf-fig14`: a picture for each dataset. The samples are chosen by nobody: numbers 0 and up of seed 0.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import imread

from flowexp.cli.recipes import Line, Lines, Rows


def measure(lines: Lines) -> dict[str, Any]:
    panels = dict.fromkeys(line.columns["panel"] for line in lines)
    pictures = {
        f"samples_{panel}": side_by_side([line for line in lines if line.columns["panel"] == panel], panel)
        for panel in panels
    }
    return {**pictures, "shown": [{**line.columns, "network calls": line.scores()["network calls"]} for line in lines]}


def side_by_side(lines: list[Line], title: str) -> Figure:
    """The grids of one dataset next to each other, by method."""
    figure = Figure(figsize=(4.8 * len(lines), 5.2), dpi=150, layout="constrained")
    for axes, line in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines, strict=True):
        axes.imshow(imread(line.picture("samples")))
        axes.set_title(", ".join(str(value) for key, value in line.columns.items() if key != "panel"))
        axes.axis("off")
    figure.suptitle(title)
    return figure


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    """Nothing more: a picture of samples is drawn where they are measured."""
    return {}


def summarise(tables: dict[str, Rows]) -> Rows:
    return tables["shown"]
