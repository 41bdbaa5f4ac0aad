"""Processes started beside each other agree on one run folder."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from flowexp.launch import _agree_on_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "outputs/x/2026-01-01"),
        ({"SLURM_JOB_ID": "7"}, "outputs/x/2026-01-01"),  # one process: the folder is its own anyway
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, "outputs/x/job_7"),
        ({"TORCHELASTIC_RUN_ID": "abc"}, "outputs/x/job_abc"),
        ({"TORCHELASTIC_RUN_ID": "none"}, "outputs/x/2026-01-01"),
    ],
)
def test_the_job_of_a_cluster_names_the_folder(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = OmegaConf.create({"run_dir": "outputs/x/2026-01-01"})
    _agree_on_folder(config)
    assert config.run_dir == folder
