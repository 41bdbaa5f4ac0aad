"""Training curves are on the disk while a run runs, and a resumed run has one curve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowexp.records.csv_log import CsvLog
from flowexp.records.tables import read_csv


def rows(folder: Path) -> list[dict[str, float]]:
    found = read_csv(folder / "csv/version_0/metrics.csv")
    return [{name: cell for name, cell in row.items() if cell != ""} for row in found]


def test_a_row_is_in_the_file_as_soon_as_it_is_logged(tmp_path: Path):
    log = CsvLog(tmp_path)
    for step in (1, 50, 100):
        log.log_metrics({"train/loss": torch.tensor(0.5 * step)}, step)
        assert rows(tmp_path)[-1] == {"step": step, "train/loss": 0.5 * step}
    assert len(rows(tmp_path)) == 3


def test_numbers_of_a_step_share_a_row_whenever_they_come(tmp_path: Path):
    log = CsvLog(tmp_path)
    log.log_metrics({"train/loss": 1.0}, 10)
    log.log_metrics({"probe/peak": 0.5}, 20)
    log.log_metrics({"train/loss": 2.0, "train/lr": 0.1}, 20)
    log.log_metrics({"fid": 7.0}, 10)
    log.log_metrics({"fid": 6.0}, 20)
    log.log_metrics({"fid": 5.0}, 20)
    expected = [
        {"step": 10, "train/loss": 1, "fid": 7},
        {"step": 20, "probe/peak": 0.5, "train/loss": 2, "train/lr": 0.1, "fid": 5},
    ]
    assert rows(tmp_path) == expected


@pytest.mark.parametrize(("start", "kept"), [(300, [100, 200, 300]), (299, [100, 200]), (0, [])])
def test_a_run_that_goes_on_drops_the_rows_beyond_its_checkpoint(tmp_path: Path, start: int, kept: list[int]):
    log = CsvLog(tmp_path)
    for step in (100, 200, 300):
        log.log_metrics({"train/loss": 1.0}, step)
    resumed = CsvLog(tmp_path)
    resumed.go_on_from(start)
    assert [row["step"] for row in rows(tmp_path)] == kept
    resumed.log_metrics({"train/loss": 2.0, "train/new": 3.0}, start + 1)
    assert [row["step"] for row in rows(tmp_path)] == [*kept, start + 1]
    assert rows(tmp_path)[-1] == {"step": start + 1, "train/loss": 2, "train/new": 3}


def test_numbers_come_back_to_the_last_digit(tmp_path: Path):
    log, value = CsvLog(tmp_path), 1 / 3
    log.log_metrics({"x": value, "nothing": float("nan")}, 1)
    CsvLog(tmp_path).go_on_from(1)
    (row,) = rows(tmp_path)
    assert row["x"] == value and row["nothing"] != row["nothing"]


@pytest.mark.parametrize("tail", ["20", "20,", "20,1.", "2\0", "\0\0\0\n", "junk,1.0\n", "20,1,2,3\n"])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, tail: str):
    log = CsvLog(tmp_path)
    log.log_metrics({"train/loss": 4.0}, 10)
    with log.file.open("a") as file:
        file.write(tail)
    resumed = CsvLog(tmp_path)
    resumed.log_metrics({"train/loss": 5.0}, 30)
    assert rows(tmp_path) == [{"step": 10, "train/loss": 4}, {"step": 30, "train/loss": 5}]


def test_the_files_of_an_earlier_version_one_for_each_start_become_one(tmp_path: Path):
    for version, content in ((0, "step,train/loss\n1,9\n2,8\n3,7\n"), (1, "train/loss,step,m\n6,2,1\n5,4,\n")):
        file = tmp_path / f"csv/version_{version}/metrics.csv"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    CsvLog(tmp_path).go_on_from(3)
    assert rows(tmp_path) == [
        {"step": 1, "train/loss": 9}, {"step": 2, "train/loss": 6, "m": 1}, {"step": 3, "train/loss": 7},
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["version_0"]


def test_nothing_is_written_before_there_is_something_to_write(tmp_path: Path):
    log = CsvLog(tmp_path)
    log.go_on_from(0)
    log.save()
    log.finalize("success")
    assert list(tmp_path.iterdir()) == []
