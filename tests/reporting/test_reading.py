"""What lies in a folder is read whole; what is missing or damaged is said, and costs nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from flowexp.records.tables import read_csv
from flowexp.records.verdict import Verdict
from flowexp.reporting.reading import read_run, read_training, read_verdicts
from flowexp.reporting.side_by_side import read_runs


def test_measurements_come_by_name_in_the_order_of_the_run_and_by_step(finished: Path):
    run = read_run(finished)
    assert run.names == ["noise_levels", "samples", "probe", "frechet_x"]
    assert [entry.step for entry in run.of("probe")] == [100, 200]
    assert run.remarks == ()


def test_a_table_keeps_every_digit_of_its_csv(finished: Path):
    (*_, last) = read_run(finished).of("probe")
    numbers = [{key: float(cell) for key, cell in row.items()} for row in last.rows]
    assert numbers == read_csv(finished / "measurements/probe/step_00000200.csv")


def test_a_torn_measurement_costs_itself_only(own: Path):
    (own / "measurements/probe/step_00000100.json").write_text('{"name": "pro')
    run = read_run(own)
    assert [entry.step for entry in run.of("probe")] == [200]
    assert run.remarks == ("probe/step_00000100.json is damaged",)


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n half"])
def test_half_a_picture_is_no_picture(own: Path, damage: bytes):
    (own / "measurements/probe/step_00000200.png").write_bytes(damage)
    first, last = read_run(own).of("probe")
    assert first.picture is not None and last.picture is None


def test_a_run_that_only_began_is_a_run_with_remarks(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("name: early\n")
    run = read_run(tmp_path)
    assert (run.label, run.measured, run.training) == ("early", (), ())
    assert [remark.split(" is missing")[0] for remark in run.remarks] == ["run.json", "summary.json"]


@pytest.mark.parametrize("settings, complaint", [(None, "no run folder"), ("a: [1", "cannot be read as YAML")])
def test_a_folder_without_a_run_is_refused_with_a_sentence(tmp_path: Path, settings: str | None, complaint: str):
    if settings is not None:
        (tmp_path / "config.yaml").write_text(settings)
    with pytest.raises(ValueError, match=complaint):
        read_run(tmp_path)


def test_an_evaluation_comes_from_where_its_run_does(finished: Path, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(f"name: evaluate\nrun: {finished}\n")
    assert read_run(tmp_path).origin["commit"] == "0123abcd"


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart_by_their_folders(make_run, tmp_path: Path):
    runs = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")])
    assert [run.label for run in runs] == ["digits_fm (a)", "digits_fm (b)"]
    with pytest.raises(ValueError, match="same folder twice"):
        read_runs([tmp_path / "a", tmp_path / "a"])


def test_training_curves_go_on_over_a_resume_and_a_step_taken_twice_counts_once(tmp_path: Path):
    for version, content in (
        (0, "step,train/loss\n1,9\n2,8\n"),
        (10, "step,train/loss,m/x\n3,6,\n4,,1\n"),
        (2, "step,train/loss\n2,7\n"),
    ):
        folder = tmp_path / f"csv/version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(content)
    assert [(row["step"], row["train/loss"]) for row in read_training(tmp_path)] == [(1, 9), (2, 7), (3, 6)]


def test_verdicts_are_found_wherever_they_are_left(own: Path):
    path = own / "measurements/probe/step_00000200.json"
    none = Verdict("velocity deficit", "none", "1 %")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdicts": [none.data()]}))
    found = read_run(own).verdicts
    assert [str(verdict) for verdict in found] == [
        "low-noise pathology: dip of 10.0 points",
        "no velocity deficit: 1 %",
    ]
    assert [verdict.is_calm for verdict in found] == [False, True]


@pytest.mark.parametrize("content", ["text", 5, {"about": "x"}, [{"about": "x", "state": "maybe"}]])
def test_what_is_no_list_of_verdicts_is_none(content: object):
    assert read_verdicts({"verdicts": content}) == ()


def test_a_nan_stays_a_nan(own: Path):
    path = own / "measurements/frechet_x/step_00000200.json"
    path.write_text(path.read_text().replace("12.3456789", "NaN"))
    assert math.isnan(read_run(own).of("frechet_x")[0].scalars["frechet/x"])
