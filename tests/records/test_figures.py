from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.records import figures
from flowexp.records.figures import Panel, image_grid, plot_curves, plot_maps, plot_panels, save_figure, save_image

ROWS = [
    {"t": 0.5, "loss": 0.2, "split": "test"},
    {"t": 0.0, "loss": 0.9, "split": "test"},
    {"t": 0.2, "loss": None, "split": "train"},
    {"t": 0.1, "loss": 0.4, "split": "train"},
]


def test_every_series_is_a_line_in_the_order_of_x():
    axes = plot_curves(ROWS, "t", "loss", series="split", names={"t": "noise level"}).axes[0]
    assert {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines} == {
        "test": ([0.0, 0.5], [0.9, 0.2]),
        "train": ([0.1], [0.4]),
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("noise level", "loss")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["test", "train"]


@pytest.mark.slow
def test_every_column_is_a_panel(tmp_path):
    figure = plot_curves(ROWS, "t", ["loss", "t"], log_x=True, log_y=True)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "t"]
    save_figure(figure, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 600


def test_a_panel_shows_columns_together_under_their_own_names():
    lines = {"t": "level", "loss": "of the test", "missing": "never"}
    panels = [Panel("losses", "nats", lines, log_y=True, level=0.5, exact=("t",))]
    (axes,) = plot_panels(ROWS, "t", panels, "noise level t", log_x=True).axes
    level, exact, line = axes.lines
    assert exact.get_linewidth() > 3 * line.get_linewidth()
    assert list(line.get_xdata()) == [0.0, 0.1, 0.5] and list(level.get_ydata()) == [0.5, 0.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["level", "of the test"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left")) == ("noise level t", "nats", "losses")
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "0", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5",
    ]  # fmt: skip


def test_a_legend_hides_no_line_and_a_narrow_axis_has_few_ticks():
    figure = plot_curves(ROWS, "t", "loss", series="split", names={"split": ""}, log_x=True, size=(3.6, 2.6))
    figure.draw_without_rendering()
    (axes,), legend = figure.axes, figure.axes[0].get_legend()
    assert legend.get_title().get_text() == ""
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    assert figure.get_figheight() == pytest.approx(2.6 + 0.19)  # one row of two labels
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.005", "0.02", "0.1", "0.3"]


def test_a_map_has_a_cell_for_each_step_and_level_and_a_gap_where_nothing_was_measured():
    cells = {(10, 0.1): 1.0, (20, 0.1): 2.0, (20, 0.5): 100.0}
    axes = plot_maps({"loss": cells}).axes[0]
    (mesh,) = axes.collections
    values = np.ma.filled(mesh.get_array(), np.nan).reshape(2, 2)
    assert np.array_equal(values, [[1.0, 2.0], [np.nan, 100.0]], equal_nan=True)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.1", "0.5"]
    assert type(mesh.norm).__name__ == "LogNorm"  # the values span a factor of 100


def test_a_column_without_a_number_is_an_empty_panel():
    assert not plot_curves(ROWS[2:3], "t", "loss", series="split").axes[0].lines


def test_a_grid_keeps_every_pixel_in_its_place():
    images = torch.randint(0, 255, (5, 3, 4, 6), dtype=torch.uint8)
    grid = image_grid(images, columns=3, scale=2, gap=1)
    assert grid.shape == (1 + 2 * (8 + 1), 1 + 3 * (12 + 1), 3)
    for index, image in enumerate(images):
        top, left = 1 + (index // 3) * 9, 1 + (index % 3) * 13
        cell = grid[top : top + 8 : 2, left : left + 12 : 2]
        assert torch.equal(cell, image.permute(1, 2, 0)) and torch.equal(
            cell, grid[top + 1 : top + 8 : 2, left + 1 : left + 12 : 2]
        )
    assert (grid[0] == 255).all() and (grid[:, -1] == 255).all() and (grid[10:, 28:] == 255).all()


def test_small_grey_pictures_are_enlarged_to_be_seen():
    assert image_grid(torch.zeros(9, 1, 8, 8, dtype=torch.uint8)).shape == (3 * 50 + 2, 3 * 50 + 2, 3)


@pytest.mark.parametrize("images", [torch.rand(4, 1, 8, 8), torch.zeros(0, 1, 8, 8, dtype=torch.uint8)])
def test_pictures_whose_range_would_be_guessed_are_refused(images):
    with pytest.raises(ValueError, match="uint8 pictures"):
        image_grid(images)


def test_a_saved_picture_has_the_same_pixels(tmp_path):
    picture = torch.randint(0, 256, (10, 12, 3), dtype=torch.uint8)
    save_image(picture, tmp_path / "picture.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "picture.png")), picture.numpy())


@pytest.mark.slow
def test_figures_can_be_imported_without_loading_matplotlib():
    command = "import sys, flowexp.records.figures; print({'matplotlib', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True).stdout.strip() == "set()"


def test_lines_look_different_where_there_are_more_than_colours():
    rows = [{"x": x, "y": line, "line": str(line)} for line in range(10) for x in range(2)]
    lines = plot_curves(rows, "x", "y", "line").axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 10


def test_a_figure_for_a_paper_has_the_width_of_its_columns_and_leaves_the_figure_as_it_is(tmp_path: Path):
    rows = [{"t": t, "a": t, "b": 1 - t, "run": run} for run in "xy" for t in (0.0, 0.5, 1.0)]
    figure = figures.plot_curves(rows, "t", ["a", "b"], "run")
    before = figure.get_size_inches().tolist(), figure.axes[0].xaxis.label.get_fontsize()
    figures.save_for_paper(figure, tmp_path / "one.svg", width=3.25)
    figures.save_for_paper(figure, tmp_path / "one.pdf", width=3.25)
    width = float(re.search(r'width="([\d.]+)pt"', (tmp_path / "one.svg").read_text())[1]) / 72
    assert 5.5 < width <= 6.6  # two panels, less the margins
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF") and "<text" in (tmp_path / "one.svg").read_text()
    assert (figure.get_size_inches().tolist(), figure.axes[0].xaxis.label.get_fontsize()) == before


def test_every_figure_is_saved_as_pdf_too_where_that_is_chosen(tmp_path: Path):
    figure = figures.plot_curves([{"t": 0.0, "a": 1.0}, {"t": 1.0, "a": 2.0}], "t", "a")
    try:
        figures.also_save_as("pdf")
        figures.save_figure(figure, tmp_path / "a.png")
    finally:
        figures.also_save_as(None)
    figures.save_figure(figure, tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.pdf", "b.png"}
    with pytest.raises(ValueError, match=r"figure\.format must be png, pdf or svg, got bmp"):
        figures.also_save_as("bmp")


def test_what_does_not_change_is_drawn_from_zero():
    flat = figures.plot_curves([{"t": t, "lr": 1e-4} for t in (0, 1, 2)], "t", "lr")
    assert flat.axes[0].get_ylim() == pytest.approx((0, 1.25e-4))
