"""Figures and pictures as the run's folder keeps them. matplotlib and Pillow are imported when something is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowexp.records.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct to colour-blind readers too; markers make lines distinct in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"  # one more than colours, so that the two together repeat after 56 lines
MOST_MARKERS = 60  # a line of more points shows none
LINEAR_BELOW = 0.01  # where a logarithmic axis becomes linear, so that t = 0 has a place on it
SMALLEST_CELL = 48  # pixels per side below which a sample is enlarged
MOST_MAPS = 6  # of one figure
LOG_COLOURS = 30  # a map whose values span more than this factor has colours by their logarithm
LEVEL_TICKS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of a logarithmic axis of noise levels
FEW_LEVEL_TICKS = (0.0, 0.005, 0.02, 0.1, 0.3, 1.0)  # of a narrow one
PANEL = (4.8, 3.4)  # inches of one panel, and of what below it is no legend
NARROW = 4.0  # inches
LEGEND_ROW = 0.19  # inches
COLUMN = 3.25  # inches, of a column of ICML
SMALLEST_LETTERS = 6.5  # points in print
VECTORS = ("pdf", "svg")

Row = Mapping[str, Any]
Cells = Mapping[Any, float]  # a value by (step, noise level), or by what else lies across and up


def plot_curves(
    rows: Sequence[Row],
    x: str,
    y: str | Sequence[str],
    series: str | None = None,
    names: Mapping[str, str] | None = None,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    size: tuple[float, float] = PANEL,
    band: tuple[str, str] | None = None,
    across: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A panel for each column of `y`, drawn over the column `x` of a table in long format.

    Arguments:
        rows: the table. A row whose `y` is None or NaN is left out of that panel.
        series: the column with one line for each of its values.
        names: labels of axes and legends by column; without one, its name.
        size: of a panel, in inches; legends come on top of its height.
        band: columns of the lower and upper end of what is sure, drawn pale behind each line.
        across: values by their name that belong to no place on the axis, by column: dashed lines across its panel.
    """
    columns = [y] if isinstance(y, str) else list(y)
    names = names or {}
    figure, all_axes = _side_by_side(len(columns), size)
    for axes, column in zip(all_axes, columns, strict=True):
        _draw_series(axes, rows, x, column, series, band)
        for place, (label, value) in enumerate((across or {}).get(column, {}).items()):
            axes.axhline(
                value, color="0.35", linestyle=("--", ":", "-.")[place % 3], linewidth=1, label=label, zorder=0
            )
        _dress(axes, names.get(x, x), names.get(column, column), log_x, log_y, size[0])
        _from_zero_if_flat(axes)
    _add_legends(figure, size, 1 if series else 2, names.get(series, series) if series else "")
    figure.suptitle(title)
    return figure


def _side_by_side(num: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * num, size[1]), dpi=150, layout="constrained")
    return figure, figure.subplots(1, num, squeeze=False)[0]


def _add_legends(figure: Figure, size: tuple[float, float], fewest: int, title: str = "") -> None:
    """A legend below each panel with `fewest` lines or more, where it hides none; the figure grows by its height."""
    from matplotlib.transforms import ScaledTranslation

    tallest = 0
    for axes in figure.axes:
        labels = axes.get_legend_handles_labels()[1]
        if len(labels) < fewest:
            continue
        columns = 1 if max(map(len, labels)) > 7 * size[0] else 2
        tallest = max(tallest, -(-len(labels) // columns) + bool(title))
        below = axes.transAxes + ScaledTranslation(0, -0.5, figure.dpi_scale_trans)
        axes.legend(
            title=title, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=columns, frameon=False,
            fontsize="small", title_fontsize="small", borderaxespad=0, alignment="left",
        )  # fmt: skip
    figure.set_size_inches(figure.get_figwidth(), size[1] + LEGEND_ROW * tallest)


@dataclass(frozen=True)
class Panel:
    """One pair of axes that shows several columns of a table together.

    Arguments:
        title: of the panel.
        y: what the vertical axis measures, and in which unit.
        lines: labels of the legend, by column.
        log_y: whether that axis is logarithmic; values <= 0 are then left out.
        level: a value worth a thin line across, such as 1 for a ratio.
        exact: columns that are known and not measured: drawn as a broad pale line, so that others on it stay visible.
    """

    title: str
    y: str
    lines: Mapping[str, str]
    log_y: bool = False
    level: float | None = None
    exact: tuple[str, ...] = ()


def plot_panels(rows: Sequence[Row], x: str, panels: Iterable[Panel], x_name: str = "", log_x: bool = False) -> Figure:
    """Panels side by side over the column `x`; a column that no row has a number of is left out."""
    panels = list(panels)
    figure, all_axes = _side_by_side(len(panels), PANEL)
    for axes, panel in zip(all_axes, panels, strict=True):
        if panel.level is not None:
            axes.axhline(panel.level, color="0.6", linewidth=0.9, zorder=0)
        for place, (column, label) in enumerate(panel.lines.items()):
            points = [(row[x], row[column]) for row in rows if _is_number(row.get(column))]
            _draw_line(axes, points, place, label, column in panel.exact)
        _dress(axes, x_name or x, panel.y, log_x, panel.log_y)
        axes.set_title(panel.title, loc="left", fontsize="medium")
    _add_legends(figure, PANEL, 2)
    return figure


def _draw_series(
    axes: Axes, rows: Sequence[Row], x: str, y: str, series: str | None, band: tuple[str, str] | None
) -> None:
    lines = list(dict.fromkeys(row[series] for row in rows)) if series else [None]
    for place, line in enumerate(lines):
        own = [row for row in rows if (not series or row[series] == line) and _is_number(row.get(y))]
        _draw_line(axes, [(row[x], row[y]) for row in own], place, str(line))
        if band and own:
            across, low, high = zip(*sorted((row[x], row[band[0]], row[band[1]]) for row in own), strict=True)
            axes.fill_between(across, low, high, color=COLOURS[place % len(COLOURS)], alpha=0.15, linewidth=0)


def _draw_line(axes: Axes, points: Sequence[tuple[Any, Any]], place: int, label: str, exact: bool = False) -> None:
    if not points:
        return
    across, up = zip(*sorted(points), strict=True)
    again, place = divmod(place, len(COLOURS))  # behind the last colour they begin anew, dashed and with other markers
    marker = MARKERS[(place + again) % len(MARKERS)] if len(points) <= MOST_MARKERS else ""
    if exact:
        axes.plot(across, up, label=label, color="0.8", linewidth=5, solid_capstyle="round", zorder=1)
        return
    style = {"color": COLOURS[place], "marker": marker, "linestyle": ("-", "--", ":")[again % 3]}
    axes.plot(across, up, label=label, markersize=3.5, linewidth=1.4, **style)  # type: ignore[arg-type]


def _dress(axes: Axes, x: str, y: str, log_x: bool, log_y: bool, width: float = PANEL[0]) -> None:
    """Names, scales and a light grid, of a panel `width` inches wide."""
    axes.set(xlabel=x, ylabel=y)
    if log_x:
        axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
        low, high = axes.get_xlim()
        if low < 0:  # a margin, which looks wide where the axis is linear
            axes.set_xlim(left=max(low, -LINEAR_BELOW / 5))
        ticks = [tick for tick in (FEW_LEVEL_TICKS if width < NARROW else LEVEL_TICKS) if low <= tick <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: _between(value, *axes.get_ylim()))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _from_zero_if_flat(axes: Axes) -> None:
    """Draws what does not change from 0 on: enlarged, its rounding would look like a curve."""
    values = [float(value) for line in axes.get_lines() for value in line.get_ydata()]  # type: ignore[union-attr, arg-type]
    if values and max(values) > 0 and max(values) - min(values) < 1e-6 * max(values):
        axes.set_ylim(0, 1.25 * max(values))


def _between(value: float, low: float, high: float) -> str:
    """What stands at a small tick of a logarithmic axis: 2 and 5 where it has few large ones."""
    return f"{value:g}" if high < 100 * low and f"{value:e}"[0] in "25" else ""


def plot_maps(maps: Mapping[str, Cells]) -> Figure:
    """Values over (step, noise level), a panel for each title, each with its colours; of the first six maps."""
    from matplotlib.figure import Figure

    shown = dict([*maps.items()][:MOST_MAPS])
    figure = Figure(figsize=(4.8 * len(shown), 3.6), dpi=150, layout="constrained")
    for axes, (title, cells) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        draw_map(axes, cells, title, min(cells.values()), max(cells.values()))
    return figure


def draw_map(axes: Axes, cells: Cells, label: str, low: float, high: float, numbers: bool = False) -> None:
    """Cells of equal size, since levels and steps lie unevenly; a gap where nothing was measured.

    label: what the colours mean; they reach from `low` to `high`, by the logarithm where that spans much.
    numbers: whether each cell's value stands in it.
    """
    from matplotlib.colors import LogNorm, Normalize

    steps, levels = sorted({step for step, _ in cells}), sorted({t for _, t in cells})
    grid = [[cells.get((step, t), math.nan) for step in steps] for t in levels]
    norm = LogNorm(low, high) if 0 < low * LOG_COLOURS < high else Normalize(low, high)
    mesh = axes.pcolormesh(grid, cmap="viridis", norm=norm, edgecolors="face", linewidth=0.4)  # an SVG shows gaps
    for axis, values in ((axes.xaxis, [f"{step:,}" for step in steps]), (axes.yaxis, [f"{t:g}" for t in levels])):
        stride = math.ceil(len(values) / 6)
        axis.set_ticks([place + 0.5 for place in range(0, len(values), stride)], values[::stride])
    for (step, t), value in cells.items() if numbers else ():
        place, is_dark = (steps.index(step) + 0.5, levels.index(t) + 0.5), norm(value) < 0.6
        colour = "white" if is_dark else "black"
        axes.text(*place, f"{value:.4g}", color=colour, fontsize="small", ha="center", va="center")
    axes.set(xlabel="step", ylabel="noise level t")
    axes.figure.colorbar(mesh, ax=axes, label=label).outline.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize="small")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def image_grid(images: Tensor, columns: int | None = None, scale: int | None = None, gap: int = 2) -> Tensor:
    """Pictures side by side on white: uint8 (N, 1 or 3, H, W) to uint8 (height, width, 3).

    Arguments:
        columns: pictures per row; None makes the grid nearly square.
        scale: each pixel becomes scale x scale; None enlarges small pictures to about 48 pixels.
        gap: pixels between pictures; a single one has no margin.

    Raises:
        ValueError: another dtype or shape. Floats are refused, since their range could only be guessed.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"a grid needs uint8 pictures (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}: "
            "convert samples with flowexp.data.to_uint8"
        )
    from torchvision.utils import make_grid

    scale = scale or max(1, round(SMALLEST_CELL / images.shape[2]))
    columns = columns or math.ceil(math.sqrt(len(images)))
    cells = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return make_grid(cells, columns, gap, pad_value=255).permute(1, 2, 0).contiguous()


def stamp(figure: Figure, words: str) -> Figure:
    """The same figure with `words` in small letters under its title, such as at which scale it was made."""
    if words:
        title = figure.get_suptitle()
        figure.suptitle(f"{title}\n{words}" if title else words, fontsize="x-small")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a matplotlib figure in the format of its suffix, whole or not at all.

    After `also_save_as("pdf")` a PNG has a PDF of the same name beside it, as a column of a paper takes it.
    """
    with atomic.replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:])
    if _vector["format"] and path.suffix == ".png":
        save_for_paper(figure, path.with_suffix(f".{_vector['format']}"), float(_vector["width"]))


_vector: dict[str, Any] = {"format": None, "width": COLUMN}


def also_save_as(vector: str | None, width: float = COLUMN) -> None:
    """From now on every figure of this process is saved as `vector` (pdf, svg) too; None or png leaves it at PNG.

    Raises:
        ValueError: another format, or a width of no column.
    """
    if vector not in (None, "png", *VECTORS):
        raise ValueError(f"figure.format must be png, {' or '.join(VECTORS)}, got {vector}")
    if not 1 <= width <= 20:
        raise ValueError(f"figure.width is the width of a panel in inches, such as {COLUMN}, got {width}")
    _vector.update(format=vector if vector in VECTORS else None, width=width)


def save_for_paper(figure: Figure, path: Path, width: float = COLUMN) -> None:
    """Writes a figure as a paper's column takes it: panels `width` inches wide, letters of 7 and 8 points, real text.

    Of a figure with several panels side by side each is as wide, for the page's whole width. The figure itself stays
    as it is: this is what `figure.format=pdf` does, and in Python `save_for_paper(plot_curves(...), Path("fig.pdf"))`.

    Arguments:
        path: its suffix is the format, pdf or svg.
        width: of a panel, in inches: 3.25 is a column of ICML, 5.5 the text of NeurIPS and ICLR.
    """
    import matplotlib

    smaller = width / PANEL[0]
    panels = max(1, round(figure.get_figwidth() / PANEL[0]))
    size, texts, lines = figure.get_size_inches().copy(), _sizes_of_text(figure), _widths_of_lines(figure)
    try:
        figure.set_size_inches(width * panels, size[1] * smaller)
        for text, points in texts:
            text.set_fontsize(max(SMALLEST_LETTERS, 0.8 * points))
        for line, points in lines:
            line.set_linewidth(0.8 * points)
        settings: dict[Any, Any] = {
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "svg.hashsalt": path.name,
        }  # fonts that journals take
        with atomic.replacing(path) as partial, matplotlib.rc_context(settings):
            no_date = {"CreationDate": None} if path.suffix == ".pdf" else {"Date": None}
            figure.savefig(partial, format=path.suffix[1:], bbox_inches="tight", pad_inches=0.02, metadata=no_date)
    finally:
        figure.set_size_inches(*size)
        for text, points in texts:
            text.set_fontsize(points)
        for line, points in lines:
            line.set_linewidth(points)


def _sizes_of_text(figure: Figure) -> list[tuple[Any, float]]:
    from matplotlib.text import Text

    figure.draw_without_rendering()  # tick labels exist from here on
    return [(text, float(text.get_fontsize())) for text in figure.findobj(Text)]


def _widths_of_lines(figure: Figure) -> list[tuple[Any, float]]:
    return [(line, float(line.get_linewidth())) for axes in figure.axes for line in axes.get_lines()]


def save_image(image: Tensor, path: Path) -> None:
    """Writes a picture, uint8 (H, W, 3), as PNG, whole or not at all."""
    from PIL import Image

    with atomic.replacing(path) as partial:
        Image.fromarray(image.cpu().numpy()).save(partial, format="PNG")
