"""A sweep's page has its table, the way to each job's page, and a chart where one number was swept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowexp.reporting.page import render_sweep
from flowexp.reporting.sweep import is_sweep, read_sweep, sweep_charts

TABLE = """job,sampler.s0,probe/dip,status
0,1.0,0.25,finished
1,1.1,0.123456789,finished
2,1.2,,"failed (1), see log.txt"
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "sweep.csv").write_text(TABLE)
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
    assert (read.settings, read.numbers) == (["sampler.s0"], ["probe/dip"])
    assert [chart.title for chart in sweep_charts(read)] == ["probe/dip"]


@pytest.mark.parametrize("change", [("sampler.s0", "sampler.s0,seed"), ("1.1", "heun")])
def test_other_sweeps_have_a_table_only(sweep: Path, change: tuple[str, str]):
    (sweep / "sweep.csv").write_text(TABLE.replace(*change))
    assert sweep_charts(read_sweep(sweep)) == []


def test_a_setting_that_all_jobs_share_was_not_swept(sweep: Path):
    same = TABLE.replace("job,", "job,objective,").replace("\n0,", "\n0,lcf,").replace("\n1,", "\n1,lcf,")
    (sweep / "sweep.csv").write_text(same.replace("\n2,", "\n2,lcf,"))
    read = read_sweep(sweep)
    assert read.settings == ["sampler.s0"] and [chart.title for chart in sweep_charts(read)] == ["probe/dip"]


def test_a_table_without_jobs_is_refused(tmp_path: Path):
    (tmp_path / "sweep.csv").write_text("")
    with pytest.raises(ValueError, match="no table of jobs"):
        read_sweep(tmp_path)


def test_a_number_with_a_card_is_a_number_whatever_its_name(tmp_path: Path):
    (tmp_path / "sweep.csv").write_text("job,seed,fid,card of fid,status\n0,1,9.5,ab12cd34,finished\n")
    read = read_sweep(tmp_path)
    assert (read.settings, read.numbers) == (["seed"], ["fid"])
    assert "ab12cd34" in render_sweep(read)
