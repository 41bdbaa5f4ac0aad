"""How many processes a command has, and by which name those of one job find each other."""

from __future__ import annotations

import re

import pytest

from flowexp.cli.launcher_ranks import check_sweeps_alone, name_in_common, num_side_by_side


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, None),  # one process: the folder is its own anyway
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, "job_7"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "2"}, "job_7_2"),  # a later srun in it
        ({"TORCHELASTIC_RUN_ID": "abc", "WORLD_SIZE": "2"}, "job_abc"),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"}, None),
    ],
)
def test_processes_have_the_name_of_their_job(
    environment: dict[str, str], name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(environment, monkeypatch)
    assert name_in_common() == name


@pytest.mark.parametrize("job", ["none", "a76f81a9-2af4-4f0e-8c3b-1f2d3c4b5a69"])
def test_processes_of_one_machine_without_a_name_are_called_by_their_start(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start({"TORCHELASTIC_RUN_ID": job, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, monkeypatch)
    name = name_in_common()
    assert name is not None and re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", name) and name == name_in_common()


def test_processes_that_have_no_name_in_common_are_told_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    start({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, monkeypatch)
    with pytest.raises(ValueError, match=r"2 processes were started .*: add run_dir=FOLDER, or to torchrun --rdzv-id"):
        name_in_common()


def start(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_sweep_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sweeps_alone()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="-m was started 4 times side by side: start it once"):
        check_sweeps_alone()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    check_sweeps_alone()


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "WORLD_SIZE"])
def test_srun_and_torchrun_say_how_many_they_start(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_side_by_side() == 1
    monkeypatch.setenv(variable, "4")
    assert num_side_by_side() == 4
