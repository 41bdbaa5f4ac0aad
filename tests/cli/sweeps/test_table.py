"""The table that ends a sweep: a row per job, from wherever the job worked."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from flowexp.cli.sweeps.table import JobResult, print_table
from flowexp.records.files import atomic
from flowexp.records.run_folder import RunFolder


def job(sweep: Path, number: int, code: int, *overrides: str, run: Path | None = None, loss: float = 0.5) -> None:
    run = run or sweep / str(number)
    run.mkdir(parents=True, exist_ok=True)
    if code == 0:
        atomic.write_json(run / "summary.json", {"scalars": {"noise_levels/loss": loss}})
    JobResult(run=str(run), overrides=list(overrides), exit_code=code).write(sweep / str(number))


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_job_that_went_on_in_an_older_folder_has_its_row(tmp_path: Path):
    job(tmp_path / "sweep", 0, 0, "seed=1", run=tmp_path / "older", loss=0.25)
    job(tmp_path / "sweep", 1, 0, "seed=2")
    assert print_table(tmp_path / "sweep") == 0
    assert [row["noise_levels/loss"] for row in rows_of(tmp_path / "sweep")] == ["0.25", "0.5"]


def test_what_all_jobs_share_is_in_the_file_but_not_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(2):
        job(tmp_path, number, 0, "data=digits", f"objective.T_min={number}")
    print_table(tmp_path)
    printed = capsys.readouterr().out
    assert "T_min" in printed and "digits" not in printed
    assert [row["data"] for row in rows_of(tmp_path)] == ["digits", "digits"]


def test_a_job_that_was_killed_has_no_log_to_look_into(tmp_path: Path):
    job(tmp_path, 0, -9, "seed=1")
    job(tmp_path, 1, 2, "seed=2")
    (tmp_path / "1/log.txt").write_text("Traceback")
    assert print_table(tmp_path) == 1
    assert [row["status"] for row in rows_of(tmp_path)] == ["failed (-9)", "failed (2), see log.txt"]


def test_jobs_that_were_refused_are_told_with_their_reason_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    job(tmp_path, 0, 0, "run=a")
    for number, (run, why) in enumerate([("b", "there is no run b"), ("c", "no"), ("d", "no")], start=1):
        JobResult(str(tmp_path / run), [f"run={run}"], 2, refusal=why).write(tmp_path / str(number))
    assert print_table(tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: job 1: there is no run b\nerror: job 2, 3: no\n"
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished", "refused", "refused", "refused"]


def test_a_sweep_of_which_no_job_has_ended_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert print_table(tmp_path) == 1
    assert capsys.readouterr().err == f"no job of the sweep {tmp_path} has ended\n"


def test_of_one_job_the_numbers_alone_are_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    job(tmp_path, 0, 0, "data=digits", "seed=1")
    print_table(tmp_path)
    printed = capsys.readouterr().out
    assert "digits" not in printed and "0.5" in printed


def test_many_numbers_have_a_line_each_where_their_columns_would_be_cut(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"probe/a_number_called_{letter}" for letter in "abcdef"]
    for number in range(3):
        RunFolder(tmp_path / str(number)).path.mkdir()
        atomic.write_json(tmp_path / str(number) / "summary.json", {"scalars": dict.fromkeys(names, float(number))})
        JobResult(run=str(tmp_path / str(number)), overrides=[f"seed={number}"], exit_code=0).write(
            tmp_path / str(number)
        )
    print_table(tmp_path)
    printed = capsys.readouterr().out
    assert all(re.search(rf"{name}\W+0\W+1\W+2\b", printed) for name in [*names, "seed"])
    assert list(rows_of(tmp_path)[0]) == ["job", "seed", *names, "status"]


def test_jobs_are_in_the_order_of_their_numbers(tmp_path: Path):
    for number in (10, 9, 0):
        job(tmp_path, number, 0, f"seed={number}")
    print_table(tmp_path)
    assert [row["job"] for row in rows_of(tmp_path)] == ["0", "9", "10"]


@pytest.mark.parametrize("swept, is_warned", [("sampler.s0", False), ("seed", True)])
def test_numbers_that_differ_in_more_than_what_is_swept_are_warned_of(
    swept: str, is_warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for number, s0 in enumerate((1.0, 1.1)):
        protocol = {"sampler": {"s0": s0}, "cards": {"fid": f"card{number}"}}
        (tmp_path / str(number)).mkdir()
        summary = {"scalars": {"fid": 1.0}, "protocol": {"samples": protocol}}
        atomic.write_json(tmp_path / str(number) / "summary.json", summary)
        JobResult(str(tmp_path / str(number)), [f"{swept}={s0}"], 0).write(tmp_path / str(number))
    assert print_table(tmp_path) == 0
    assert ("card card0 (job 0) and card card1 (job 1) do not compare" in capsys.readouterr().err) is is_warned


def test_a_narrow_terminal_has_short_names_three_digits_and_the_best_job(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for number in range(9):
        scores = {"frechet/efficientnet_lite": 60.123456 + abs(number - 4), "probe_paper/peak": 0.5 + number}
        scores |= {f"mine/number_{letter}": 1.23456 * number for letter in "abcdef"} | {"samples/nfe": 50.0}
        RunFolder(tmp_path / str(number)).path.mkdir()
        atomic.write_json(tmp_path / str(number) / "summary.json", {"scalars": scores})
        settings = ["data=digits", f"optimizer.lr=0.00543020680907832{number}", f"sampler.s0=1.{number}"]
        JobResult(run=str(tmp_path / str(number)), overrides=settings, exit_code=0).write(tmp_path / str(number))
    print_table(tmp_path)
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line[:1] in "┃│"]
    assert max(map(len, table)) <= 80 and len(table) == 10
    assert re.search(r"job ┃ +lr ┃ +s0 ┃ Fréchet ┃ mine/number_a", table[0])
    assert re.search(r"│ 4 +│ 0\.00543 │ 1\.4 │ +60\.1\* │", printed)
    assert "Fréchet, less is better: job 4 (lr=0.00543, s0=1.4)" in printed
    assert "nfe" not in printed  # which all jobs share


def test_two_jobs_that_tie_have_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(2):
        job(tmp_path, number, 0, f"seed={number}")
    print_table(tmp_path)
    assert "*" not in capsys.readouterr().out
