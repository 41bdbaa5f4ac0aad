"""Sweeps: every job has its own settings on all its processes, its own log and its own row of the table."""

from __future__ import annotations

import csv
import json
import shlex
import signal

import pytest

from flowexp.records.keys import training_key
from flowexp.records.run_folder import RunFolder
from flowexp.records.search import find_run
from flowexp.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def sampler_sweep(shell, tiny):
    """Three jobs that differ in the sampler alone; the second asks for the impossible."""
    finished = shell.run("train", "-m", *tiny, "sampler.num_steps=4,0,5", "hydra.sweep.dir=sampler_sweep")
    return finished, shell.folder / "sampler_sweep"


def summary(job) -> dict:
    return json.loads((job / "summary.json").read_text())


def test_jobs_that_differ_in_the_sampler_train_once(sampler_sweep):
    _, sweep = sampler_sweep
    assert list_checkpoints(sweep / "0" / "checkpoints")
    assert not (sweep / "2" / "checkpoints").exists()
    assert summary(sweep / "0")["trained_run"] is None
    assert summary(sweep / "2")["trained_run"] == str((sweep / "0").resolve())
    assert summary(sweep / "2")["step"] == summary(sweep / "0")["step"]


def test_a_job_that_shares_its_training_is_sampled_like_any_other(sampler_sweep, in_process, tmp_path):
    _, sweep = sampler_sweep
    said = f"run={sweep / '2'}", "num_samples=2", f"run_dir={tmp_path / 'drawn'}"
    assert in_process("sample", *said) == 0
    assert list((tmp_path / "drawn").rglob("*.png"))


def test_a_job_of_a_sweep_knows_the_command_that_makes_it_alone(sampler_sweep, tiny):
    words = [shlex.split(json.loads((sampler_sweep[1] / job / "run.json").read_text())["command"]) for job in "02"]
    assert [word for word in words[0] if word.startswith("sampler.num_steps")] == ["sampler.num_steps=4"]
    assert [word for word in words[1] if word.startswith("sampler.num_steps")] == ["sampler.num_steps=5"]
    assert words[0][:3] == ["python", "-m", "flowexp.train"] and len(words[0]) >= len(tiny)


def test_a_sweep_started_again_in_its_folder_shares_the_same_training(sampler_sweep, shell, tiny):
    _, sweep = sampler_sweep
    shell.run("train", "-m", *tiny, "sampler.num_steps=4,5", "hydra.sweep.dir=again").succeeded()
    shell.run("train", "-m", *tiny, "sampler.num_steps=4,5", "hydra.sweep.dir=again").succeeded()
    again = shell.folder / "again"
    assert RunFolder(again / "0").config().trained_run is None
    assert RunFolder(again / "1").config().trained_run == str((again / "0").resolve())
    assert summary(again / "0")["step"] == summary(sweep / "0")["step"]


def test_a_run_is_continued_where_it_was_trained(sampler_sweep):
    _, sweep = sampler_sweep
    later = RunFolder(sweep / "2").config()
    found = find_run(sweep, training_key(later))
    assert found is not None and found.path.name == "0"


def test_a_failing_job_does_not_stop_the_others(sampler_sweep):
    finished, sweep = sampler_sweep
    assert finished.code == 1
    assert not (sweep / "1" / "summary.json").exists()
    assert (sweep / "2" / "summary.json").exists()


def test_a_failing_job_has_its_traceback_in_its_own_log(sampler_sweep):
    finished, sweep = sampler_sweep
    log = (sweep / "1" / "log.txt").read_text()
    assert log.startswith("Traceback")
    assert "a solver needs num_steps of at least 1, got 0" in log
    assert not (sweep / "0" / "log.txt").exists()
    assert "Traceback" not in finished.err
    assert "a solver needs num_steps of at least 1, got 0" in finished.err


def test_one_table_lists_all_jobs(sampler_sweep):
    finished, sweep = sampler_sweep
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler.num_steps"] for row in rows] == ["4", "0", "5"]
    assert [row["status"] for row in rows] == ["finished", "failed (2), see log.txt", "finished"]
    assert finished.out.count("sweep.csv") == 1


def test_a_signal_to_a_sweep_reaches_its_job_and_ends_it(shell, tiny):
    slow = ("+callbacks.slow._target_=witnesses.Slow", "+callbacks.slow.seconds=0.3", "+callbacks.slow.last=6")
    started = shell.start("train", "-m", *tiny, *slow, "sampler.num_steps=4,5", "hydra.sweep.dir=stopped")
    first = shell.folder / "stopped" / "0" / "checkpoints"
    ended = started.signal_when(lambda: list_checkpoints(first), signal.SIGTERM)
    assert ended.code == 143
    assert "which is saved" in ended.err
    assert not (shell.folder / "stopped" / "1").exists()
