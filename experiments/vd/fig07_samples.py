"""VD Figure 7: samples of the same noise, without SSC above and with it below.

`python -m flowexp.reproduce vd/fig7`, with `run=RUN` for a run of your own.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.image import imread

from flowexp.cli.recipes import Lines, Rows


def measure(lines: Lines) -> dict[str, Rows | Figure]:
    return {"lines": [line.scores() for line in lines], "samples": draw_samples(lines)}


def draw_samples(lines: Lines) -> Figure:
    """The grid of each line, one below another."""
    pictures = [imread(line.picture("samples")) for line in lines]
    height, width = pictures[0].shape[:2]
    figure = Figure(figsize=(8, len(pictures) * (8 * height / width + 0.3)), dpi=150, layout="constrained")
    panels = figure.subplots(len(pictures), 1, squeeze=False)[:, 0]
    for axes, line, picture in zip(panels, lines, pictures, strict=True):
        axes.imshow(picture)
        axes.set_title(line.columns["SSC"], loc="left", fontsize="small")
        axes.set_axis_off()
    return figure


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {}


def summarise(tables: dict[str, Rows]) -> Rows:
    return tables["lines"]
