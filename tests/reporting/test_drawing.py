"""Charts are whole SVG elements, hold what the tables hold, and follow the page's colours."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flowexp.records.figures import COLOURS
from flowexp.reporting.drawing import draw_lines, heat_maps, level_rows, sparkline, thin
from flowexp.reporting.reading import read_run

ROWS = [{"step": step, "loss": 1.0 / step, "run": name} for name in ("a", "_b", "$c") for step in (1, 2, 3)]


def test_a_chart_is_one_svg_without_colours_that_vanish_in_the_dark():
    svg = draw_lines(ROWS, "step", "loss", "run")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "loss over step" and "width" not in root.attrib
    assert "#000000" not in svg and "currentColor" in svg
    assert {"a", " _b", "$c"} <= {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.slow
def test_two_charts_on_a_page_share_no_id():
    one, two = (
        set(re.findall(r'(?:clip-path="url\(|href=")#([^")]+)', draw_lines(ROWS, "step", "loss"))) for _ in "ab"
    )
    assert one and not one & two


def test_a_column_without_a_finite_number_has_no_chart():
    assert draw_lines([{"step": 1, "loss": math.nan}, {"step": math.inf, "loss": 1.0}], "step", "loss") is None


def test_a_run_has_one_colour_in_all_charts_of_a_page():
    alone = draw_lines([row for row in ROWS if row["run"] == "$c"], "step", "loss", "run", order=("a", "_b", "$c"))
    assert [colour.lower() in alone for colour in COLOURS[:3]] == [False, False, True]


def test_a_thinned_line_keeps_its_ends():
    rows = [{"x": place} for place in range(1001)]
    assert len(thin(rows)) <= 202 and thin(rows)[0] == rows[0] and thin(rows)[-1] == rows[-1]
    assert thin(rows[:1]) == rows[:1]


@pytest.mark.slow
def test_a_heat_map_holds_every_value_of_every_step(finished: Path):
    first, second = heat_maps(read_run(finished).of("probe"))
    assert (first.series, second.series) == ("tap 1", "tap 2")
    assert second.cells[200, 0.5] == 1 / 3 + 0.5 * 2 + 200 / 1e5
    assert {step for step, _ in first.cells} == {100, 200} and {t for _, t in first.cells} == {0.0, 0.1, 0.5}
    assert ElementTree.fromstring(first.draw(0, 1)).tag.endswith("svg")


def test_training_rows_do_not_mix_into_the_map_of_test_rows(finished: Path):
    found, ratio = heat_maps(read_run(finished).of("noise_levels"))
    assert found.column == "loss" and found.cells[100, 0.25] == 1.26
    assert ratio.column == "velocity_ratio" and set(ratio.cells.values()) == {0.9}
    assert heat_maps(read_run(finished).of("noise_levels")[:1]) == []


def test_rows_over_levels_name_their_series(finished: Path):
    rows = level_rows(read_run(finished).of("probe")[-1].rows, "accuracy")
    assert {row["line"] for row in rows} == {"tap 1", "tap 2"} and len(rows) == 6


def test_a_sparkline_needs_two_numbers():
    assert sparkline([1.0, math.nan]) == ""
    assert 'points="3.0,19.0 87.0,3.0"' in sparkline([1.0, 2.0])
