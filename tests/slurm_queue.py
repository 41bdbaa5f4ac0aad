"""A pretended SLURM for machines without one: sbatch, srun, sacct and scontrol, which start jobs here and at once.

`install(FOLDER)` writes the commands; with FOLDER on PATH a program finds a cluster. What a job sees of SLURM is what
its manual says of the variables (sbatch and srun, "OUTPUT ENVIRONMENT VARIABLES"), for any number of nodes, all of
which are this machine. A job is requeued once it has ended. FOLDER/jobs has a file for each job, with its state.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scontrol")
PORTS = 15000  # Lightning adds the last four digits of a job's number


def install(folder: Path) -> None:
    """Writes the commands, and makes the queue's folder."""
    (folder / "jobs").mkdir(parents=True)
    for name in COMMANDS:
        command = folder / name
        command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -IS '{__file__}' '{folder}' {name} \"$@\"\n")
        command.chmod(0o755)


def send(folder: Path, number: signal.Signals) -> None:
    """A signal to every task that is running, as SLURM sends one before a job's time is over."""
    for file in (folder / "jobs").glob("*.tasks"):
        for process in map(int, file.read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(process, number)


# --- the commands -----------------------------------------------------------------------------------------------------


def sbatch(folder: Path, *words: str) -> int:
    """Starts the script for each task of its array, and answers with the number of the job."""
    script = Path(words[-1]).absolute()
    options = dict(re.findall(r"--([\w-]+)=(\S+)", "\n".join(re.findall(r"^#SBATCH.*", script.read_text(), re.M))))
    number = free_number()
    first, _, last = options.get("array", "").partition("%")[0].partition("-")
    for index in range(int(first), int(last) + 1) if first else [None]:
        name = str(number) if index is None else f"{number}_{index}"
        tell(folder / "jobs" / name, "PENDING")
        words = [sys.executable, "-IS", __file__, str(folder), "run", name, str(script)]
        environment = {**os.environ, **job_variables(number, index, options)}
        away = subprocess.DEVNULL  # or who reads the number would wait for the job's end
        subprocess.Popen(words, env=environment, stdin=away, stdout=away, stderr=away, start_new_session=True)
    print(f"Submitted batch job {number}")
    return 0


def run(folder: Path, name: str, script: str) -> int:
    """What the node's daemon does: runs the script, and again for as long as it was requeued meanwhile."""
    state, again, starts = folder / "jobs" / name, folder / "jobs" / f"{name}.requeue", 0
    while True:
        tell(state, "RUNNING")
        with (folder / f"{name}.log").open("ab") as log:
            environment = {**os.environ, "SLURM_RESTART_COUNT": str(starts)}
            code = subprocess.run(["bash", script], stdout=log, stderr=log, env=environment).returncode
        if not again.exists():
            break
        again.unlink()
        starts += 1
    tell(state, "FAILED" if code else "COMPLETED")
    return code


def tell(state: Path, word: str) -> None:
    """The state of a job; who reads it meanwhile sees the one before, and no empty file, which no state is."""
    new = state.with_name(f"{state.name}.new")
    new.write_text(word)
    new.replace(state)


def srun(folder: Path, *words: str) -> int:
    """Starts the job's tasks, with their ranks, and waits for all; the highest exit code is its own."""
    rest = list(words)
    targets = {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            targets[option] = rest.pop(0)
    tasks = [start_task(rank, rest, targets) for rank in range(int(os.environ["SLURM_NTASKS"]))]
    name = os.environ["SLURM_JOB_NAME_HERE"]
    (folder / "jobs" / f"{name}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
    signal.signal(signal.SIGTERM, lambda number, _: [task.send_signal(number) for task in tasks])
    codes = [task.wait() for task in tasks]
    return max(128 - code if code < 0 else code for code in codes)


def start_task(rank: int, words: list[str], targets: dict[str, str]) -> subprocess.Popen[bytes]:
    """One process of a step of a job."""
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    variables = {
        "SLURM_PROCID": rank, "SLURM_NODEID": rank // per_node, "SLURM_LOCALID": rank % per_node, "SLURM_STEP_ID": 0,
        "SLURM_STEP_NUM_TASKS": os.environ["SLURM_NTASKS"], "SLURM_STEP_NUM_NODES": os.environ["SLURM_NNODES"],
    }  # fmt: skip
    places = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    files = {}
    for option, pattern in targets.items():
        for mark, variable in places.items():
            pattern = pattern.replace(mark, os.environ.get(variable, ""))
        file = Path(pattern.replace("%t", str(rank)))
        file.parent.mkdir(parents=True, exist_ok=True)  # submitit makes it once sbatch has answered
        files[option] = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(words, env=environment, stdout=files.get("--output"), stderr=files.get("--error"))


def sacct(folder: Path, *_: str) -> int:
    """The state of every job, as `--parsable2` has it."""
    print("JobID|State|NodeList")
    for state in sorted((folder / "jobs").iterdir()):
        if not state.suffix:
            print(f"{state.name}|{state.read_text()}|localhost")
    return 0


def scontrol(folder: Path, verb: str, job: str) -> int:
    """`requeue` alone."""
    assert verb == "requeue"
    (folder / "jobs" / f"{job}.requeue").touch()
    return 0


def job_variables(number: int, index: int | None, options: dict[str, str]) -> dict[str, str]:
    """What a job sees. Nodes are called localhost and localhost1, ...: the first is where the tasks meet."""
    nodes, per_node = int(options.get("nodes", 1)), int(options.get("ntasks-per-node", 1))
    names = ",".join(["localhost", *(f"localhost{node}" for node in range(1, nodes))])
    variables = {
        "SLURM_JOB_ID": number + (index or 0), "SLURM_NTASKS": nodes * per_node, "SLURM_NTASKS_PER_NODE": per_node,
        "SLURM_NNODES": nodes, "SLURM_JOB_NUM_NODES": nodes, "SLURM_JOB_NODELIST": names, "SLURM_NODELIST": names,
        "SLURM_NODEID": 0, "SLURM_PROCID": 0, "SLURM_LOCALID": 0,
        "SLURM_JOB_NAME_HERE": number if index is None else f"{number}_{index}",  # of this file alone
    }  # fmt: skip
    if index is not None:
        variables |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    return {name: str(value) for name, value in variables.items()}


def free_number() -> int:
    """A job's number whose port nobody uses."""
    while True:
        with socket.socket() as found:
            found.bind(("localhost", 0))
            number = found.getsockname()[1] % 10_000
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", PORTS + number)):
                return 70_000 + number


if __name__ == "__main__":
    place, command, *words = sys.argv[1:]
    sys.exit({"sbatch": sbatch, "run": run, "srun": srun, "sacct": sacct, "scontrol": scontrol}[command](
        Path(place), *words
    ))  # fmt: skip
