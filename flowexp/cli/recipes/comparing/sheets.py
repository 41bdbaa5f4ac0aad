"""Sheets: pictures of several methods in blocks of equal columns, beside real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from flowexp.data import Images

CELL = 0.27  # inches of a picture
GAP = 2  # pixels between pictures, when each is enlarged to `PIXELS`
PIXELS = 48


def first_of_each_class(data: Images, rows: int, num_classes: int) -> list[int]:
    """Indices of the first `rows` pictures of each class in the order of a sheet: one of each class, then the next."""
    by_class = [torch.nonzero(data.labels == label).flatten()[:rows] for label in range(num_classes)]
    rows = min(map(len, by_class))
    return torch.stack([indices[:rows] for indices in by_class], dim=1).flatten().tolist()


def plot_sheet(blocks: Mapping[str, Tensor], columns: Sequence[str], across: int = 2) -> Figure:
    """Blocks of pictures with a name above each and labels above their columns.

    Arguments:
        blocks: pictures by name, uint8 (N, 1 or 3, H, W), row after row.
        columns: label of each column; empty ones where columns mean nothing.
        across: blocks beside each other.
    """
    from matplotlib.figure import Figure

    rows = max(-(-len(pictures) // len(columns)) for pictures in blocks.values())
    down = -(-len(blocks) // across)
    size = (across * (len(columns) * CELL + 0.15), down * (rows * CELL + 0.55))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    for axes in (panels := figure.subplots(down, across, squeeze=False).flatten())[len(blocks) :]:
        axes.set_axis_off()
    for axes, (name, pictures) in zip(panels, blocks.items(), strict=False):
        _draw_block(axes, name, pictures, columns)
    return figure


def _draw_block(axes: Axes, name: str, pictures: Tensor, columns: Sequence[str]) -> None:
    from flowexp.records.figures import image_grid

    scale = max(1, round(PIXELS / pictures.shape[-1]))
    step = scale * pictures.shape[-1] + GAP
    axes.imshow(image_grid(pictures, len(columns), scale, GAP).cpu().numpy(), interpolation="nearest")
    axes.set_xticks([GAP + step * (place + 0.5) - GAP / 2 for place in range(len(columns))], columns)
    axes.set_yticks([])
    axes.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False, length=0, labelsize="small", pad=1)
    axes.spines[:].set_visible(False)
    axes.set_title(name, loc="left", fontsize="medium", fontweight="bold")
