"""Figures of a page: matplotlib's, as SVG inside it; its black follows the page from light to dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from flowexp.records.curves import number
from flowexp.records.figures import COLOURS, LOG_COLOURS, draw_map, plot_curves
from flowexp.reporting.reading import Cells, Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 200  # of a line: more are invisible at this size, and weigh
MOST_PANELS = 4
LONGEST_WORD = 28  # letters at an axis
SIZE = (3.6, 2.6)  # inches; a chart is about as wide on the page, so that its letters have their size
X_NAMES = {"t": "noise level t"}
KINDS = ("split", "tap", "block", "seed")

_salts = count()

Row = dict[str, Any]


def as_svg(figure: Figure, title: str) -> Markup:
    """A figure as an `<svg>` element that is as wide as its place, with real text, no background and unique ids."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"figure {next(_salts)}"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = svg.replace("#000000", "currentColor")
    return Markup(svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(title), 1))


def draw_lines(
    rows: Sequence[Row],
    x: str,
    y: str,
    series: str | None = None,
    log_x: bool = False,
    title: str | None = None,
    order: Sequence[str] = (),
) -> Markup | None:
    """One column over another, a line for each value of `series`; None without a finite number. Its title names y.

    order: values of `series` whose colours are the same in every chart, also in one where some have no number.
    """
    lines: dict[Any, list[Row]] = {plain(value): [] for value in order}
    for row in rows:
        if _is_finite(row.get(x)) and _is_finite(row.get(y)):
            label = "" if series is None else plain(row[series])
            lines.setdefault(label, []).append({x: row[x], y: row[y], "line": label})
    if not any(lines.values()):
        return None
    shown = [row for line in lines.values() for row in thin(line)]
    names = {x: X_NAMES.get(x, plain(x)), y: "", "line": ""}
    log_y = 0 < min(row[y] for row in shown) * LOG_COLOURS < max(row[y] for row in shown)
    shown = [*({"line": label} for label in lines), *shown]
    figure = plot_curves(shown, x, y, "line" if series else None, names, log_x=log_x, log_y=log_y, size=SIZE)
    return as_svg(figure, title or f"{y} over {x}")


def draw_points(words: Sequence[str], values: Sequence[float | None], title: str) -> Markup | None:
    """A value for each word, from the top down; None without a finite number."""
    from matplotlib.figure import Figure

    points = [(plain(word), float(value)) for word, value in zip(words, values, strict=True) if value is not None]
    points = [(word, value) for word, value in points if math.isfinite(value)]
    if not points:
        return None
    figure = Figure(figsize=(SIZE[0], 0.8 + 0.28 * len(points)), layout="constrained")
    axes = figure.subplots()
    places = [*range(len(points), 0, -1)]
    axes.plot([value for _, value in points], places, "o", color=COLOURS[0])
    axes.set_yticks(places, [word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}..." for word, _ in points])
    axes.set_ylim(0.5, len(points) + 0.5)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure, title)


def thin(rows: Sequence[Row]) -> list[Row]:
    """At most about `MOST_POINTS` rows, evenly chosen, with the first and the last."""
    stride = math.ceil(len(rows) / MOST_POINTS)
    return [*rows[:-1:stride], rows[-1]] if rows else []


def plain(text: Any) -> str:
    """Text that matplotlib takes for neither mathematics nor a label to leave out."""
    escaped = str(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


@dataclass(frozen=True)
class HeatMap:
    """Values of one column over (step, noise level).

    Arguments:
        words: what the colours mean.
        series: its place in the table, such as `tap 2`.
    """

    column: str
    words: str
    series: str
    cells: dict[tuple[int, float], float]

    def draw(self, low: float, high: float) -> Markup:
        """The map as SVG, its colours reaching from `low` to `high`."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        draw_map(figure.subplots(), self.cells, plain(self.words), low, high)
        return as_svg(figure, f"{self.words} {self.series} over steps and noise levels")


def heat_maps(entries: Sequence[Measured]) -> list[HeatMap]:
    """A map for each column and series of a measurement that was repeated over noise levels; none of one taken once."""
    repeated = [entry for entry in entries if entry.rows and "t" in entry.rows[0]]
    if len(repeated) < 2:
        return []
    columns = columns_over_levels(repeated)
    return [found for column, words in columns.items() for found in _maps_of(column, words, repeated)]


def columns_over_levels(entries: Sequence[Measured]) -> dict[str, str]:
    """The columns that the measurement marks as maps over noise levels, with their words, else the first one."""
    if not entries:
        return {}
    last = entries[-1]
    wanted = {column: words for column, words in last.maps.items() if column in last.rows[0]}
    first = value_column(last.rows)
    return wanted or ({} if first is None else {first: first.replace("_", " ")})


def _maps_of(column: str, words: str, entries: Sequence[Measured]) -> list[HeatMap]:
    maps = []
    for series in _series(entries[-1].rows, column)[:MOST_PANELS]:
        cells = {(entry.step, t): value for entry in entries for t, value in _along(entry.rows, column, series)}
        if cells:
            maps.append(HeatMap(column, words, series_words(series), cells))
    return maps


def value_column(rows: Sequence[Cells]) -> str | None:
    """The first column of measured numbers: not t, and not one that distinguishes rows of one level."""
    kinds = series_columns(rows)
    return next((column for column in rows[0] if column != "t" and column not in kinds), None)


def series_columns(rows: Sequence[Cells]) -> list[str]:
    """The columns that distinguish the rows of one noise level: those of KINDS, and any that holds words."""
    return [column for column in rows[0] if column in KINDS or any(_is_word(row[column]) for row in rows)]


def _series(rows: Sequence[Cells], column: str) -> list[Cells]:
    """The cells that distinguish the lines of a table; of training and test rows the test's, which have all levels."""
    kinds = series_columns(rows)
    found = dict.fromkeys(tuple((kind, row[kind]) for kind in kinds) for row in rows if row[column])
    series = [dict(items) for items in found]
    return [one for one in series if one.get("split") == "test"] or series


def _along(rows: Iterable[Cells], column: str, series: Cells) -> list[tuple[float, float]]:
    """(t, value) of the rows of one series, where both are finite."""
    own = [row for row in rows if all(row.get(kind) == cell for kind, cell in series.items())]
    points = [(number(row.get("t", "")), number(row.get(column, ""))) for row in own]
    return [(t, value) for t, value in points if math.isfinite(t) and math.isfinite(value)]


def level_rows(rows: Sequence[Cells], column: str) -> list[Row]:
    """A table over noise levels as numbers, with a `line` that names each row's series; for curves of several runs."""
    return [
        {"t": t, column: value, "line": series_words(series)}
        for series in _series(rows, column)
        for t, value in _along(rows, column, series)
    ]


def series_words(series: Cells) -> str:
    """The label of a series in its table, such as `tap 2, linear probe`; none for test images, the default."""
    cells = [(kind, cell) for kind, cell in series.items() if (kind, cell) != ("split", "test")]
    return ", ".join(f"{cell} {kind}" if _is_word(cell) else f"{kind} {cell}" for kind, cell in cells)


def sparkline(values: Sequence[float], width: int = 90, height: int = 22) -> Markup:
    """A line as small as a word, for a table's cell; empty with fewer than two finite values."""
    points = [(place, value) for place, value in enumerate(values) if math.isfinite(value)]
    if len(points) < 2:
        return Markup("")
    low, high = min(value for _, value in points), max(value for _, value in points)
    rise = (height - 6) / ((high - low) or 1)
    across = (width - 6) / (len(values) - 1)
    places = [(3 + across * place, height - 3 - rise * (value - low)) for place, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" aria-hidden="true"><polyline points="{line}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/></svg>'
    )


def _is_word(cell: str) -> bool:
    return bool(cell) and cell.lower() != "nan" and math.isnan(number(cell))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
