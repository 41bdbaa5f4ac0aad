"""A sweep's page has its table, the way to each job's page, and a chart where one number was swept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from flowexp.records.job_table import JobRow, JobTable, is_sweep
from flowexp.reporting.page import render_sweep
from flowexp.reporting.sweep import read_sweep, sweep_charts


def row(job: str, settings: dict[str, str], status: str = "finished", **numbers: float) -> JobRow:
    measured = {f"probe/{name}": value for name, value in numbers.items()}
    return JobRow(job, status, status == "finished", settings, measured, {})


ROWS = (
    row("0", {"sampler.s0": "1.0"}, dip=0.25),
    row("1", {"sampler.s0": "1.1"}, dip=0.123456789),
    row("2", {"sampler.s0": "1.2"}, "failed (1), see log.txt"),
)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    JobTable(ROWS).write(tmp_path)
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "config.yaml").write_text("name: x\n")
    return tmp_path


def test_a_sweep_is_known_by_its_table(sweep: Path):
    assert is_sweep(sweep) and not is_sweep(sweep / "0")


def test_each_job_with_a_run_is_linked_and_each_number_is_there(sweep: Path):
    page = render_sweep(read_sweep(sweep))
    assert re.findall(r'<a href="([^"]+)"', page) == ["0/report.html", "1/report.html"]
    assert '<data value="0.123456789">0.1235</data>' in page
    assert re.search(r'class="broken">failed \(1\), see log.txt', page)


def test_a_number_is_drawn_over_the_one_setting_that_was_swept(sweep: Path):
    read = read_sweep(sweep)
    assert (read.varied, read.table.numbers) == (["sampler.s0"], ["probe/dip"])
    assert [chart.title for chart in sweep_charts(read)] == ["probe dip"]


def test_a_sweep_over_several_settings_has_a_table_only(sweep: Path):
    changed = replace(ROWS[1], settings={**ROWS[1].settings, "seed": "1"})
    JobTable((ROWS[0], changed, ROWS[2])).write(sweep)
    assert sweep_charts(read_sweep(sweep)) == []


def test_a_sweep_over_names_has_a_point_for_each(sweep: Path):
    named = [replace(row, settings={"sampler": name}) for row, name in zip(ROWS, ("euler", "heun", "rk4"), strict=True)]
    JobTable(tuple(named)).write(sweep)
    (chart,) = sweep_charts(read_sweep(sweep))
    assert chart.title == "probe dip" and re.findall(r">(euler|heun|rk4)<", chart.svg) == ["euler", "heun"]  # 2 failed


def test_the_best_of_a_number_is_marked_where_one_way_is_better(sweep: Path):
    best, other = (replace(row, numbers={"probe/peak": peak}) for row, peak in zip(ROWS, (0.9, 0.8), strict=False))
    JobTable((best, other)).write(sweep)
    read = read_sweep(sweep)
    assert read.best == {"probe/peak": "0"}
    assert re.search(r'class="number best"><data value="0.9">0.9</data><span class="faint"> best', render_sweep(read))


def test_a_setting_that_all_jobs_share_was_not_swept(sweep: Path):
    JobTable(tuple(replace(row, settings={"objective": "lcf", **row.settings}) for row in ROWS)).write(sweep)
    read = read_sweep(sweep)
    assert read.varied == ["sampler.s0"] and [chart.title for chart in sweep_charts(read)] == ["probe dip"]


@pytest.mark.parametrize("content", ['{"jobs": []}', '{"jobs": 3}', '{"jobs": [{"job": "0"}]}', "{}"])
def test_a_table_without_jobs_is_refused(tmp_path: Path, content: str):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match=r"sweep\.json has no table of jobs"):
        read_sweep(tmp_path)


def test_what_a_column_is_does_not_follow_from_how_it_is_spelt(tmp_path: Path):
    JobTable(
        (JobRow("0", "finished", True, {"a/b": "1"}, {"fid": 9.5, "card of x.y": 2.0}, {"fid": "ab12cd34"}),)
    ).write(tmp_path)
    read = read_sweep(tmp_path)
    assert (read.varied, read.table.numbers, read.table.cards) == (["a/b"], ["fid", "card of x.y"], ["fid"])
    assert "ab12cd34" in render_sweep(read)
    assert (tmp_path / "sweep.csv").read_text() == (
        "job,a/b,fid,card of fid,card of x.y,status\n0,1,9.5,ab12cd34,2.0,finished\n"
    )
