"""Sweeps from the door to the table: a folder each, jobs however deep they lie, runs however they are spelt."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowexp.cli import launch
from flowexp.cli.composing import Configs
from flowexp.cli.sweeps.settings import is_sweep, per_job
from flowexp.cli.sweeps.table import JobResult, print_table
from flowexp.records.files import atomic
from flowexp.records.keys import training_key
from flowexp.records.run_folder import CONFIG, RunFolder
from flowexp.report import _with_runs_as_lists, write_report


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that end at once and have measured 1."""
    program = (
        "import os, pathlib, sys; folder = pathlib.Path(sys.argv[1]);"
        f"(folder / 'config.yaml').write_text(os.environ['{CONFIG}']);"
        "(folder / 'summary.json').write_text('{\"scalars\": {\"a/b\": 1}}')"
    )
    monkeypatch.setattr(launch, "_job_command", lambda command, folder: [sys.executable, "-c", program, str(folder)])


def trained(folder: Path) -> None:
    """A folder that a training run has begun in."""
    config = Configs().compose("train", ["run_dir=any", "name=x"])
    RunFolder(folder).create(config)
    atomic.write_json(folder / "run.json", {"training_key": training_key(config)})


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("train", ["seed=1,2", "output_root=here"]), ("sample", ["run=a,b"]), ("evaluate", ["++checkpoint=a,b"])],
)
def test_sweeps_of_one_second_have_a_folder_each(command: str, arguments: list[str], workdir: Path) -> None:
    for _ in range(20):
        folders = [launch._folder_of_sweep(command, arguments, Configs()) for _ in range(3)]
        assert len({*map(str, folders)}) == 3
        if any("_2'" in folder[0] for folder in folders):  # they fell into one second
            return
    raise AssertionError


def test_a_folder_that_is_named_is_taken(workdir: Path) -> None:
    assert launch._folder_of_sweep("train", ["seed=1,2", "hydra.sweep.dir=mine"], Configs()) == []


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["run={}", "++run={}", "run='a','b'", "run=choice(a,b)"])
def test_a_sweep_over_runs_has_its_table_however_it_is_spelt(
    spelling: str, no_work: None, in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(workdir / "a"), trained(workdir / "b")
    assert in_process("sample", "-m", spelling.format("a,b"), "num_samples=2") == 0
    (table,) = (workdir / "outputs/samples").glob("*/sweep.csv")
    assert [row["run"] for row in rows_of(table.parent)] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["nest", "sw[v1]b", "sw[/b]", "é=1,2"])
def test_jobs_two_folders_deep_have_their_table(
    folder: str, no_work: None, in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = f"hydra.sweep.dir='{folder}'" if "," in folder else f"hydra.sweep.dir={folder}"
    assert in_process("train", "-m", "seed=0,1", named, "hydra.sweep.subdir=s${seed}/x") == 0
    assert f"{folder}/sweep.csv" in "".join(capsys.readouterr().out.splitlines())
    rows = rows_of(workdir / folder)
    assert [(row["job"], row["seed"], row["status"]) for row in rows] == [
        ("s0/x", "0", "finished"),
        ("s1/x", "1", "finished"),
    ]
    page = write_report([workdir / folder])
    assert "s1/x" in page.read_text()


def test_sweeps_inside_a_job_are_not_its(tmp_path: Path) -> None:
    for place in ("0", "0/evaluations/sweep_1/0"):
        (tmp_path / place).mkdir(parents=True)
        JobResult(str(tmp_path / place), ["seed=0"], 0).write(tmp_path / place)
    print_table(tmp_path)
    assert [row["job"] for row in rows_of(tmp_path)] == ["0"]


def test_brackets_of_values_are_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, callbacks in enumerate(("[noise_levels]", "[/cross_terms]")):
        (tmp_path / str(number)).mkdir()
        JobResult(str(tmp_path / str(number)), [f"callbacks={callbacks}"], 0).write(tmp_path / str(number))
    print_table(tmp_path)
    printed = capsys.readouterr().out
    assert "[noise_levels]" in printed and "[/cross_terms]" in printed


def test_two_jobs_of_one_folder_are_refused_before_anything_runs(
    in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("train", "-m", "seed=1,2", "hydra.sweep.subdir=all", "hydra.sweep.dir=x") == 2
    assert "hydra.sweep.subdir=all gives 2 jobs the folder all" in capsys.readouterr().err
    assert not (workdir / "x/all").exists()


@pytest.mark.slow
def test_a_key_that_only_one_experiment_has_is_set_job_by_job(
    no_work: None, in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ("-m", "experiment=digits_fm,digits_lcf", "hydra.sweep.dir=x")
    assert in_process("train", *swept, "backbone.width=32") == 0
    assert {RunFolder(workdir / "x" / job).config().backbone.width for job in "01"} == {32}
    assert in_process("train", *swept, "objective.T_min=32") == 2
    assert "there is no key objective.T_min, which objective=lcf has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "for_each"),
    [
        ("backbone.width=32", "backbone.width=choice(32)"),
        ("+backbone.width=32", "+backbone.width=choice(32)"),
        ("logger.tags=[a,b]", "logger.tags=choice([a,b])"),
        ("seed=3", "seed=3"),
        ("~terms", "~terms"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir=x"),
    ],
)
def test_keys_of_groups_are_set_job_by_job_where_choices_are_swept(override: str, for_each: str) -> None:
    assert per_job(["objective=fm,lcf", override], Configs())[1] == for_each
    assert per_job(["seed=1,2", override], Configs())[1] == override


@pytest.mark.parametrize(
    ("arguments", "is_one"),
    [
        (["-m"], True),
        (["--multirun"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["-m", "hydra.mode=RUN"], False),
        ([], False),
    ],
)
def test_whether_it_is_a_sweep(arguments: list[str], is_one: bool) -> None:
    assert is_sweep(arguments) is is_one


@pytest.mark.parametrize("given", ["runs=a,b", "runs=[a,b]", "run=a,b", "run=[a,b]"])
def test_pages_take_runs_however_they_are_spelt(given: str, workdir: Path) -> None:
    assert _with_runs_as_lists([given]) == ["runs=['a','b']"]


def test_a_run_whose_name_has_a_comma_is_one(workdir: Path) -> None:
    (workdir / "a,b").mkdir()
    assert _with_runs_as_lists(["run=a,b"]) == ["run=a,b"]
    assert _with_runs_as_lists(["runs=a,b"]) == ["runs=['a,b']"]


def test_a_list_of_one_run_is_that_run(workdir: Path) -> None:
    assert _with_runs_as_lists(["run=[a]"]) == ["runs=['a']"]
    assert _with_runs_as_lists(["run=a"]) == ["run=a"]
