"""Figures and pictures as the run's folder keeps them. matplotlib and Pillow are imported when something is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too; markers tell lines apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
MOST_MARKERS = 60  # a line of more points shows none
LINEAR_BELOW = 0.01  # where a logarithmic axis becomes linear, so that t = 0 has a place on it
SMALLEST_CELL = 48  # pixels per side below which a sample is enlarged

Row = Mapping[str, Any]


def plot_curves(
    rows: Sequence[Row],
    x: str,
    y: str | Sequence[str],
    series: str | None = None,
    names: Mapping[str, str] | None = None,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """A panel for each column of `y`, drawn over the column `x` of a table in long format.

    Arguments:
        rows: the table. A row whose `y` is None or NaN is left out of that panel.
        series: the column whose values each make a line of their own.
        names: what the axes say for a column, which is otherwise its name.
    """
    from matplotlib.figure import Figure

    columns = [y] if isinstance(y, str) else list(y)
    names = names or {}
    figure = Figure(figsize=(4.8 * len(columns), 3.4), dpi=150, layout="constrained")
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        _draw_panel(axes, rows, x, column, series)
        axes.set(xlabel=names.get(x, x), ylabel=names.get(column, column))
        if log_x:
            axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
        if log_y:
            axes.set_yscale("log")
    figure.suptitle(title)
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], x: str, y: str, series: str | None) -> None:
    lines = list(dict.fromkeys(row[series] for row in rows)) if series else [None]
    for place, line in enumerate(lines):
        points = [(row[x], row[y]) for row in rows if (not series or row[series] == line) and _is_number(row[y])]
        if points:
            across, up = zip(*sorted(points), strict=True)
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            marker = marker if len(points) <= MOST_MARKERS else ""
            axes.plot(across, up, label=str(line), color=colour, marker=marker, markersize=3.5, linewidth=1.4)
    if series and axes.lines:
        axes.legend(title=series, frameon=False, fontsize="small")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _is_number(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def image_grid(images: Tensor, columns: int | None = None, scale: int | None = None, gap: int = 2) -> Tensor:
    """Pictures side by side on white: uint8 (N, 1 or 3, H, W) to uint8 (height, width, 3).

    Arguments:
        columns: pictures per row; None makes the grid nearly square.
        scale: each pixel becomes scale x scale; None enlarges small pictures to about 48 pixels.
        gap: pixels between pictures.

    Raises:
        ValueError: another dtype or shape. Floats are refused, since their range could only be guessed.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"a grid needs uint8 pictures (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}: "
            "convert samples with flowexp.data.to_uint8"
        )
    scale = scale or max(1, round(SMALLEST_CELL / images.shape[2]))
    columns = columns or math.ceil(math.sqrt(len(images)))
    cells = images.expand(-1, 3, -1, -1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cells = F.pad(cells, (gap, 0, gap, 0), value=255)
    missing = -len(cells) % columns
    cells = F.pad(cells, (0, 0, 0, 0, 0, 0, 0, missing), value=255)
    tall, wide = cells.shape[2:]
    grid = cells.view(-1, columns, 3, tall, wide).permute(0, 3, 1, 4, 2).reshape(-1, columns * wide, 3)
    return F.pad(grid, (0, 0, 0, gap, 0, gap), value=255)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a matplotlib figure as PNG."""
    figure.savefig(path)


def save_image(image: Tensor, path: Path) -> None:
    """Writes a picture, uint8 (H, W, 3), as PNG."""
    from PIL import Image

    Image.fromarray(image.cpu().numpy()).save(path)
