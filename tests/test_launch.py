"""Processes started beside each other agree on one run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowexp.launch import _agree_on_folder, _check_sweeps_once, unused_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "outputs/x/2026-01-01"),
        ({"SLURM_JOB_ID": "7"}, "outputs/x/2026-01-01"),  # one process: the folder is its own anyway
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, "outputs/x/job_7"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "2"}, "outputs/x/job_7_2"),  # a later srun in it
        ({"TORCHELASTIC_RUN_ID": "abc", "WORLD_SIZE": "2"}, "outputs/x/job_abc"),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"}, "outputs/x/2026-01-01"),
    ],
)
def test_the_job_of_a_cluster_names_the_folder(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agreed(environment, monkeypatch) == folder


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [unused_folder(tmp_path / "outputs/12-00-00").name for _ in range(3)]
    assert names == ["12-00-00", "12-00-00_2", "12-00-00_3"]
    assert all((tmp_path / "outputs" / name).is_dir() for name in names)


def test_processes_that_have_no_name_in_common_are_told_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"2 processes were started .*: add run_dir=FOLDER, or to torchrun --rdzv-id"):
        agreed({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}, monkeypatch)


def agreed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = OmegaConf.create({"run_dir": "outputs/x/2026-01-01"})
    assert _agree_on_folder(config) is (config.run_dir != "outputs/x/2026-01-01")
    return str(config.run_dir)


def test_a_sweep_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_sweeps_once()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="-m was started 4 times side by side: start it once"):
        _check_sweeps_once()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    _check_sweeps_once()
