"""What a sweep says while it runs: each job's settings, what was submitted, and what W&B calls its runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from flowexp.cli.assembly.building import build_loggers
from flowexp.cli.errors import sentence_for
from flowexp.cli.sweeps import jobs as sweep_jobs
from flowexp.records.run_folder import RunFolder


def test_a_job_is_told_with_its_number_and_what_is_swept(capsys: pytest.CaptureFixture[str]) -> None:
    with sweep_jobs.announced(["objective=lcf", "objective.T_min=20,50", "seed=1,2,3", "data.root=choice(x)"]):
        sweep_jobs.tell(2, ["objective=lcf", "objective.T_min=50", "seed=1", "data.root=x"])
    sweep_jobs.tell(0, ["optimizer.lr=0.1"])
    assert capsys.readouterr().err.split("\n\n") == ["\njob 3 of 6: T_min=50, seed=1\n".rstrip(), "job 1: lr=0.1\n"]


def test_an_optimiser_of_a_sweep_has_no_number_of_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    with sweep_jobs.announced(["hydra/sweeper=optuna", "optimizer.lr=interval(0.1,1)"]):
        sweep_jobs.tell(4, ["optimizer.lr=0.25"])
    assert capsys.readouterr().err == "\njob 5: lr=0.25\n"


def test_submitted_jobs_are_told_at_once_with_their_logs(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class AutoExecutor:
        def map_array(self, *arguments: Any) -> list[Any]:
            return [SimpleNamespace(job_id=n, paths=SimpleNamespace(stdout=workdir / f"{n}.out")) for n in (7, 8)]

    submitit = ModuleType("submitit")
    submitit.AutoExecutor = AutoExecutor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    before = AutoExecutor.map_array
    with sweep_jobs.announced(["hydra/launcher=submitit_slurm", "seed=1,2"]):
        assert len(AutoExecutor().map_array()) == 2
    told = capsys.readouterr().err
    assert "2 jobs submitted (7, 8)" in told and "logs: 7.out, 8.out" in told
    assert AutoExecutor.map_array is before


def test_off_a_cluster_there_is_one_sentence() -> None:
    error = RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')
    assert "hydra/launcher=submitit_local" in str(sentence_for(error, "train"))


def test_wandb_knows_the_job_the_sweep_and_the_commit(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    made: dict[str, Any] = {}

    def record(keep: Callable[..., Any] = made.update, **about: Any) -> Any:
        keep(about)
        return SimpleNamespace()

    monkeypatch.setattr("flowexp.records.tracking._offline", lambda about: record(**about))
    config = OmegaConf.create(
        {"name": "digits_lcf", "logger": {"w": {"_target_": "flowexp.records.tracking.wandb_logger", "offline": True}}}
    )
    variables = sweep_jobs.environment_of_job(Path("outputs/sweeps/friday"), ["objective.T_min=50"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = RunFolder(workdir / "run")
    run.path.mkdir()
    build_loggers(config, run, {"commit": "abc", "parameters": 12})
    assert (made["name"], made["group"]) == ("digits_lcf T_min=50", "sweeps/friday")
    assert made["config"]["origin"] == {"commit": "abc", "parameters": 12}
