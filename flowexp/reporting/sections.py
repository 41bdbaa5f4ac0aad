"""The parts of a page below its numbers: training curves, and a section for each measurement."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from flowexp.records.figures import LINEAR_BELOW
from flowexp.records.protocol_card import flatten
from flowexp.reporting.drawing import Row, columns_over_levels, draw_lines, heat_maps, level_rows
from flowexp.reporting.reading import Cells, Measured, Run

AT_THE_END = ("train/grad_norm", "train/lr", "train/steps_per_second")
LONGEST = 60  # letters of a setting in the line below a heading
MOST_SETTINGS = 8
MOST_LINES = 7  # of a chart: as many as there are colours


@dataclass(frozen=True)
class Chart:
    """A drawing with the words above it."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Picture:
    """A measurement's picture at one step, as a data URI with its size in pixels; without one, a gap is shown."""

    step: int
    source: str | None = None
    width: int = 0
    height: int = 0

    @property
    def is_wide(self) -> bool:
        """Whether it has panels side by side, and needs the whole width."""
        return self.width > 1.8 * self.height

    @property
    def is_very_wide(self) -> bool:
        """Whether it has three panels or more, whose letters half the width would make unreadable."""
        return self.width > 2.6 * self.height


@dataclass(frozen=True)
class Part:
    """What one run has of a measurement.

    Arguments:
        pictures: by step, the last one last; at most so many, evenly chosen.
        left_out: how many pictures are not among them.
        columns, rows, step: the table of the last step that has one.
    """

    label: str
    pictures: list[Picture]
    left_out: int
    columns: list[str]
    rows: list[Cells]
    step: int | None
    is_empty: bool


@dataclass(frozen=True)
class Section:
    """One measurement in all runs: curves over noise levels and steps, maps over both, and each run's own part.

    Arguments:
        about: what it shows, and in which unit.
        protocol: how the first run measured it, in a line.
    """

    name: str
    charts: list[Chart]
    parts: list[Part]
    about: str = ""
    protocol: str = ""

    @property
    def shows_anything(self) -> bool:
        """Whether there is a chart, a picture or a table, or one is missing that should be there."""
        return bool(self.charts) or any(part.pictures or part.rows or part.is_empty for part in self.parts)


def training_charts(runs: Sequence[Run]) -> list[Chart]:
    """A chart for each training curve: the loss, its terms, then gradient norm, learning rate and speed."""
    rows = [row | {"run": run.label} for run in runs for row in run.training]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("train/"))
    order = {"train/loss": -1} | {key: place for place, key in enumerate(AT_THE_END, 1)}
    return _charts(rows, sorted(keys, key=lambda key: order.get(key, 0)), runs, x="step")


def sections_of(runs: Sequence[Run], most_pictures: int) -> list[Section]:
    """A section for each measurement that has more than numbers, in the order in which the runs took them."""
    names = dict.fromkeys(name for run in runs for name in run.names)
    sections = [_section(name, runs, most_pictures) for name in names]
    return [section for section in sections if section.shows_anything]


def _section(name: str, runs: Sequence[Run], most_pictures: int) -> Section:
    having = [run for run in runs if run.of(name)]
    charts = [*_level_charts(name, runs), *_step_charts(name, runs), *_map_charts(name, having)]
    last = having[0].of(name)[-1]
    parts = [_part(run, run.of(name), most_pictures) for run in having]
    return Section(name, charts, parts, last.about, in_a_line(last.protocol))


def in_a_line(protocol: Mapping[str, Any]) -> str:
    """The short settings of a protocol, as `num samples 500 · seed 0`; all of them stand beside the numbers.

    Those of the measurement itself come before those of its parts, such as its sampler's.
    """
    flat = sorted(flatten(protocol).items(), key=lambda item: item[0].count("."))
    said = {field.replace(".", " ").replace("_", " "): _short(value) for field, value in flat}
    return " · ".join(
        [f"{field} {value}".rstrip() for field, value in said.items() if value is not None][:MOST_SETTINGS]
    )


def _short(value: Any) -> str | None:
    """A setting in few letters; None for one that is not set, or long."""
    if value is None or value is False or len(str(value)) > LONGEST:
        return None
    return "" if value is True else f"{value:.4g}" if isinstance(value, float) else str(value)


def _step_charts(name: str, runs: Sequence[Run]) -> list[Chart]:
    """Each number over steps, where some run has several."""
    entries = [(run, entry) for run in runs for entry in run.of(name)]
    rows = [{**entry.scalars, "step": entry.step, "run": run.label} for run, entry in entries]
    keys = dict.fromkeys(key for _, entry in entries for key in entry.scalars)
    repeated = [key for key in keys if any(sum(key in e.scalars for e in run.of(name)) > 1 for run in runs)]
    return _charts(rows, repeated, runs, x="step")


def _level_charts(name: str, runs: Sequence[Run]) -> list[Chart]:
    """The runs' last curves over the noise level in one chart; a single run's lies in its picture."""
    found = [(run, _last_table(run.of(name))) for run in runs]
    tables = [(run, entry) for run, entry in found if entry is not None and "t" in entry.rows[0]]
    if len(tables) < 2:
        return []
    columns = columns_over_levels([tables[0][1]])
    labels = [run.label for run in runs]
    return [chart for column, words in columns.items() for chart in _over_levels(column, words, tables, labels)]


def _over_levels(column: str, words: str, tables: Sequence[tuple[Run, Measured]], labels: Sequence[str]) -> list[Chart]:
    """One column of several runs' tables: a line for each run and series, in panels of a series each where many.

    labels: of all runs of the page, whose places name their colours where a chart shows one series of each.
    """
    rows = [
        row | {"run": run.label}
        for run, entry in tables
        if column in entry.rows[0]
        for row in level_rows(entry.rows, column)
    ]
    series = list(dict.fromkeys(row["line"] for row in rows))
    if len({(row["run"], row["line"]) for row in rows}) <= MOST_LINES:
        together = [row | {"run": f"{row['run']} {row['line']}".strip()} for row in rows]
        alone = [f"{label} {series[0]}".strip() for label in labels] if len(series) == 1 else []
        return _level_chart(words, column, together, alone)
    panels = [(line, [row for row in rows if row["line"] == line]) for line in series]
    return [chart for line, own in panels for chart in _level_chart(f"{words}, {line}", column, own, labels)]


def _level_chart(words: str, column: str, rows: Sequence[Row], order: Sequence[str]) -> list[Chart]:
    """A line for each `run` of the rows; none without a finite number."""
    log_x = any(0 < row["t"] <= LINEAR_BELOW for row in rows)
    svg = draw_lines(rows, "t", column, "run", log_x, f"{words} over noise levels", order)
    return [Chart(words, svg)] if svg else []


def _map_charts(name: str, runs: Sequence[Run]) -> list[Chart]:
    """Maps over (step, noise level) with the same colours for the same value in all runs."""
    maps = [(run.label, found) for run in runs for found in heat_maps(run.of(name))]
    charts = []
    for label, found in maps:
        values = [value for _, other in maps if other.column == found.column for value in other.cells.values()]
        about = (label if len(runs) > 1 else "", found.words, found.series)
        charts.append(Chart(" · ".join(filter(None, about)), found.draw(min(values), max(values))))
    return charts


def _charts(rows: Sequence[Row], keys: Sequence[str], runs: Sequence[Run], x: str) -> list[Chart]:
    """A chart for each key of the rows over x, with a line of the same colour for each of several runs."""
    labels = [run.label for run in runs] if len(runs) > 1 else []
    drawn = [(key, draw_lines(rows, x, key, "run" if labels else None, order=labels)) for key in keys]
    return [Chart(key, svg) for key, svg in drawn if svg]


def _part(run: Run, entries: Sequence[Measured], most_pictures: int) -> Part:
    pictured = [entry for entry in entries if any(other.picture for other in entries)]
    chosen = spread(pictured, most_pictures)
    table = _last_table(entries)
    return Part(
        label=run.label,
        pictures=[embed(entry) for entry in chosen],
        left_out=len(pictured) - len(chosen),
        columns=list(table.rows[0]) if table else [],
        rows=table.rows if table else [],
        step=table.step if table else None,
        is_empty=all(entry.is_empty() for entry in entries),
    )


def _last_table(entries: Sequence[Measured]) -> Measured | None:
    return next((entry for entry in reversed(entries) if entry.rows), None)


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, evenly chosen, the last always among them."""
    if len(items) <= most:
        return list(items)
    return [items[round((place + 1) * len(items) / most) - 1] for place in range(most)]


def embed(entry: Measured) -> Picture:
    """A PNG as a data URI: a page that is mailed keeps its pictures."""
    if entry.picture is None or entry.picture_size is None:
        return Picture(entry.step)
    source = f"data:image/png;base64,{base64.b64encode(entry.picture.read_bytes()).decode()}"
    return Picture(entry.step, source, *entry.picture_size)
