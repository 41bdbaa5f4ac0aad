"""The processes of a command: how many there are, and whether they share the work or each would do all of it."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from datetime import datetime

from omegaconf import DictConfig, ListConfig

_START_ONCE = "start it once, without srun or torchrun"


def num_side_by_side() -> int:
    """How many processes srun or torchrun started for this command, itself included."""
    return _num_of("SLURM_STEP_NUM_TASKS", "WORLD_SIZE")  # SLURM_NTASKS is also that of a script which starts one


def num_processes(config: DictConfig) -> int | None:
    """How many processes train together; None where the number depends on the machine's devices."""
    devices = config.trainer.devices
    if isinstance(devices, ListConfig):
        return len(devices) * int(config.trainer.num_nodes)
    return devices * int(config.trainer.num_nodes) if isinstance(devices, int) and devices > 0 else None


def name_in_common() -> str | None:
    """What processes that a cluster starts by itself can name one folder by: their job; None of a single process.

    Raises:
        ValueError: the launcher gives them no id in common.
    """
    if (num := _num_of("SLURM_NTASKS", "WORLD_SIZE")) == 1:
        return None
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if _is_of_no_name(job) and os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE", ""):
        return _start_of_parent() or f"job_{job}"
    if job == "none":
        raise ValueError(
            f"{num} processes were started that have no name in common: add run_dir=FOLDER, or to torchrun "
            "--rdzv-id=NAME or --standalone"
        )
    step = os.environ.get("SLURM_STEP_ID", "0")  # srun counts its calls in a job, anew where it is requeued
    return f"job_{job}" if step == "0" else f"job_{job}_{step}"


def _is_of_no_name(job: str) -> bool:
    """Whether torchrun named the job by itself, which sorts and tells nothing."""
    return "SLURM_JOB_ID" not in os.environ and (job == "none" or re.fullmatch(r"[0-9a-f-]{36}", job) is not None)


def _start_of_parent() -> str | None:
    """The second in which torchrun was started, as other runs' folders are named; None where `ps` cannot tell.

    All processes of one machine have it in common, and those that torchrun starts again.
    """
    command = ["ps", "-o", "lstart=", "-p", str(os.getppid())]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"})
        return f"{datetime.strptime(told.stdout.strip(), '%a %b %d %H:%M:%S %Y'):%Y-%m-%d_%H-%M-%S}"
    return None


def check_sweeps_alone() -> None:
    """Raises ValueError where each of several processes would start the same sweep."""
    if (num := num_side_by_side()) > 1 and "SUBMITIT_EXECUTOR" not in os.environ:  # submitit's are those of one job
        raise ValueError(
            f"-m was started {num} times side by side: {_START_ONCE}; each job starts the processes that its strategy "
            "needs, or let hydra/launcher=submitit_slurm submit the jobs"
        )


def check_processes(command: str, config: DictConfig) -> None:
    """Raises ValueError where each of several processes would do the whole work, in one folder."""
    num = num_side_by_side()
    if command == "train" and not config.dry_run:
        _check_machines(int(config.trainer.num_nodes), num)
    if num == 1 or command == "encode":  # which shares it out by shards
        return
    said = f"flowexp.{command} was started {num} times side by side"
    if command not in ("train", "evaluate"):
        raise ValueError(f"{said}, and each would do the whole work: {_START_ONCE}")
    if command == "evaluate" and config.devices != num:
        raise ValueError(f"{said}, and devices={config.devices}: add devices={num} to share it out, or {_START_ONCE}")
    if command == "train" and (wanted := num_processes(config)) not in (None, num):
        raise ValueError(
            f"{said}, and trainer.devices={config.trainer.devices} with trainer.num_nodes={config.trainer.num_nodes} "
            f"make {wanted}: add strategy=ddp and numbers whose product is {num}, or {_START_ONCE}"
        )


def _check_machines(wanted: int, num_processes: int) -> None:
    """Raises ValueError where a process would wait half an hour for machines on which no other is started."""
    by_hand = {"MASTER_ADDR", "NODE_RANK"} <= {*os.environ}
    if wanted > 1 and num_processes == 1 and not by_hand:
        raise ValueError(
            f"trainer.num_nodes={wanted} waits for processes on {wanted} machines, and this is one: start it by srun "
            "or torchrun (docs/clusters.md), or leave trainer.num_nodes out"
        )


def _num_of(*variables: str) -> int:
    """The largest of some numbers in the environment; those that Lightning starts need no config."""
    return max(int(os.environ.get(name, 1)) for name in variables)
