"""SLURM without a cluster: a pretended queue starts what the documented commands submit (tests/slurm_queue.py)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowexp.training.checkpoints import list_checkpoints

sys.path.append(str(Path(__file__).parents[1]))
import slurm_queue

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """The queue's folder, and the environment in which its commands are there."""

    folder: Path
    path: str

    def states(self) -> dict[str, str]:
        """Of each job, its state."""
        return {file.name: file.read_text() for file in (self.folder / "jobs").iterdir() if not file.suffix}

    def ended(self) -> bool:
        return not {*self.states().values()} & {"PENDING", "RUNNING"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm") / "queue"
    slurm_queue.install(folder)
    yield Cluster(folder, os.pathsep.join([str(folder), os.environ["PATH"]]))
    slurm_queue.send(folder, signal.SIGKILL)  # of a test that failed


def wait_until(ready: Callable[[], bool], seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.05)


# --- a sweep, by Hydra's launcher -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(cluster: Cluster, shell, tiny):
    """Two jobs; the second asks for the impossible."""
    words = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=7")
    jobs = ("sampler.num_steps=4,0", "hydra.sweep.dir=slurm_sweep")
    return shell.run("train", "-m", *tiny, *words, *jobs, PATH=cluster.path), shell.folder / "slurm_sweep"


def test_a_sweep_is_submitted_as_one_array_and_its_jobs_end(sweep, cluster: Cluster):
    finished, folder = sweep
    (number,) = re.findall(r"2 jobs submitted \((\d+)_0, \1_1\)", finished.err)
    assert cluster.states() == {f"{number}_0": "COMPLETED", f"{number}_1": "COMPLETED"}
    assert list_checkpoints(folder / "0" / "checkpoints")
    assert json.loads((folder / "0" / "summary.json").read_text())["step"] == 12


def test_the_command_waits_and_ends_with_the_table_of_the_jobs(sweep):
    finished, folder = sweep
    assert finished.code == 1  # of the second job
    rows = (folder / "sweep.csv").read_text().splitlines()
    assert rows[1].endswith(",finished") and "failed (2), see log.txt" in rows[2]


def test_the_settings_of_the_launcher_reach_sbatch(sweep):
    _, folder = sweep
    (script,) = (folder / ".submitit").glob("*.sh")
    text = script.read_text()
    assert "#SBATCH --partition=gpu\n" in text and "#SBATCH --time=7\n" in text and "#SBATCH --array=0-1%2\n" in text


# --- one job of two processes on two nodes, by the script of docs/clusters.md -----------------------------------------


WITNESSES = " ".join(
    (
        "+callbacks.ranks._target_=witnesses.Ranks",
        "+callbacks.slow._target_=witnesses.Slow",
        "+callbacks.slow.seconds=0",
        "+callbacks.slow.last=$((6 - 7 * SLURM_RESTART_COUNT))",  # until the signal, and never once it is requeued
    )
)


@pytest.fixture(scope="module")
def requeued(cluster: Cluster, shell, tiny, request: pytest.FixtureRequest) -> Path:
    """A run that got SIGTERM at its first checkpoint, was put back into the queue, and went on to its end."""
    text = (ROOT / "docs" / "clusters.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", text, re.S)
    settings = [word for word in tiny if not word.startswith(("trainer.max_steps", "checkpoint"))]
    changes = {
        "--ntasks-per-node=4": "--ntasks-per-node=1",
        "srun python": f"srun {request.getfixturevalue('warm_python')}",
        "+experiment=imagenet256_b_repa": " ".join([*settings, "objective=lcf", "objective.T_min=200"]),
        "trainer.devices=4": "trainer.devices=1",
        "output_root=/scratch/me/outputs": "output_root=requeued " + WITNESSES,
        "ckpt=auto": "ckpt=auto trainer.max_steps=8 checkpoint.every_n_steps=2 checkpoint.keep=99",
    }
    for before, after in changes.items():
        assert before in script
        script = script.replace(before, after)
    (shell.folder / "job.sh").write_text(script)
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PATH": cluster.path, "PYTHONPATH": paths}
    subprocess.run(["sbatch", "job.sh"], cwd=shell.folder, env=environment, check=True)
    root = shell.folder / "requeued"
    wait_until(lambda: any(root.rglob("*.ckpt")) or cluster.ended())
    slurm_queue.send(cluster.folder, signal.SIGTERM)
    wait_until(cluster.ended)
    return root


def test_a_job_at_its_time_limit_is_requeued_and_goes_on(requeued: Path, cluster: Cluster):
    (checkpoints,) = requeued.rglob("checkpoints")
    number = checkpoints.parent.name.removeprefix("job_")
    before, stopped, after = (cluster.folder / f"{number}.log").read_text().partition("stopped: ")
    assert stopped and "step 8 of 8" not in before and "step 8 of 8" in after
    assert re.search(r"Restored all states from the checkpoint at \S+/step_0000000[2-6].ckpt", after)
    assert cluster.states()[number] == "COMPLETED"


def test_the_processes_find_each_other_by_the_variables_of_slurm(requeued: Path):
    seen = [json.loads(next(requeued.rglob(f"rank{rank}.json")).read_text()) for rank in (0, 1)]
    assert seen[0] == seen[1] and seen[0]["world_size"] == 2
