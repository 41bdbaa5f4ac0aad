"""Cores are divided among what runs side by side, unless OMP_NUM_THREADS divides them."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from flowexp.cli import threads
from flowexp.cli.threads import describe_threads, share_of_job, threads_of_each


@pytest.fixture(autouse=True)
def six_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "num_cores", lambda: 6)
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (0.5, 0.0, 0.0))


@pytest.mark.parametrize(("num", "each"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_processes_share_the_cores_as_lightning_divides_them(num: int, each: int, monkeypatch: pytest.MonkeyPatch):
    from lightning_fabric.utilities import distributed

    monkeypatch.setattr(distributed, "_num_cpus_available", lambda: 6)
    assert threads_of_each(num) == each == distributed._suggested_max_num_threads(num)


def test_what_is_given_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_of_each(3) == 4
    assert share_of_job({"n_jobs": 3}) == {}


@pytest.mark.parametrize(("num", "each"), [(2, "3"), (-1, "1"), (3, "2")])
def test_jobs_side_by_side_share_the_cores(num: int, each: str):
    launcher = OmegaConf.create({"_target_": "hydra_plugins.hydra_joblib_launcher.JoblibLauncher", "n_jobs": num})
    assert share_of_job(launcher) == {"OMP_NUM_THREADS": each}


@pytest.mark.parametrize("launcher", [{}, {"n_jobs": 1}, {"n_jobs": None}, {"tasks_per_node": 4}])
def test_jobs_one_by_one_and_those_of_clusters_are_left_alone(launcher: dict[str, object]):
    assert share_of_job(launcher) == {}


def test_the_plan_says_how_many_and_when_others_take_the_cores(monkeypatch: pytest.MonkeyPatch):
    assert describe_threads(1) == "6 threads"
    assert describe_threads(2) == "3 threads in each of 2 processes"
    assert describe_threads(6) == "1 thread in each of 6 processes"
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    assert describe_threads(1).startswith("6 threads; 8 others wait for 6 cores: OMP_NUM_THREADS=1")
    assert describe_threads(6) == "1 thread in each of 6 processes"
