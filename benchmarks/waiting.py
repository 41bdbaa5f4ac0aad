"""`python -m benchmarks.waiting [rounds=3]`: what a training step takes by how threads wait for each other.

Each way of waiting times the same few steps in a process of its own (a dry run), in turns. Start it beside as many busy
processes as are wanted: `flowexp.cli.launch` sets a short spin, unless the environment says something else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

RUN = ("experiment=digits_fm", "callbacks=none", "progress_bar=false", "trainer.precision=32-true", "dry_run=true")
WAYS = {
    "libgomp's default": {"KMP_BLOCKTIME": "200"},  # libgomp does not read it, and it keeps the door from choosing
    "short spin, flowexp's": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_DECIDE = {"OMP_WAIT_POLICY", "OMP_NUM_THREADS", *(name for way in WAYS.values() for name in way)}


def main(arguments: list[str]) -> int:
    """Prints the median step of each way, and the machine's load."""
    rounds = int(arguments[0].removeprefix("rounds=")) if arguments else 3
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, variables in WAYS.items():
            seconds[name].append(seconds_per_step(variables))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, values in seconds.items():
        print(f"{name:<22} {median(values):.3f} s a step ({min(values):.3f} to {max(values):.3f})")
    return 0


def seconds_per_step(variables: dict[str, str]) -> float:
    """What a dry run with these variables finds."""
    environment = {name: value for name, value in os.environ.items() if name not in _DECIDE} | variables
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flowexp.train", *RUN, f"run_dir={folder}"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return float(json.loads((Path(folder) / "plan.json").read_text())["seconds_per_step"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
