"""The processor's cores, divided among the processes and jobs that work side by side. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

THREADS = "OMP_NUM_THREADS"
# What people set to decide how threads wait for each other. libgomp's spin for so long that they take the core from the
# thread that they wait for where other processes share the machine; threads that sleep at once wake up late. A spin
# of this length costs nothing on an idle machine and half as much on a busy one: measured in benchmarks/waiting.py.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "20000"}
_SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def num_cores() -> int:
    """The cores that this process may use: fewer than the machine has in a container or in a job of SLURM."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_each(num: int) -> int:
    """The threads of each of `num` processes: what OMP_NUM_THREADS says, or else their share of the cores."""
    given = os.environ.get(THREADS, "")
    return int(given) if given.isdigit() and int(given) > 0 else max(1, num_cores() // num)


def share_of_job(launcher: Mapping[str, Any]) -> dict[str, str]:
    """The variable that gives each job of a sweep its share, where a launcher runs several on one machine at once.

    launcher: Hydra's settings of it; joblib's `n_jobs` is -1 for as many jobs as there are cores. Nothing where the
    variable is set, and for the launchers of clusters, which divide the cores themselves.
    """
    num = launcher.get("n_jobs")
    if THREADS in os.environ or not isinstance(num, int) or num in (0, 1):
        return {}
    return {THREADS: str(threads_of_each(num if num > 0 else num_cores()))}


def short_spin() -> dict[str, str]:
    """The variable that has threads wait well on a busy machine; nothing where one of its kind is set."""
    return {} if {*_SPINNING} & {*os.environ} else _SHORT_SPIN


def describe_threads(num: int) -> str:
    """`2 threads in each of 4 processes`, with a hint where other work takes the cores that the threads are to have.

    The number is not chosen by the load: sums in another order round otherwise, and a run goes on bit for bit.
    """
    threads = threads_of_each(num)
    of_each = f" in each of {num} processes" if num > 1 else ""
    text = f"{threads} thread{'s' if threads > 1 else ''}{of_each}"
    load = os.getloadavg()[0]
    if threads == 1 or load < num_cores():
        return text
    return f"{text}; {load:.0f} others wait for {num_cores()} cores: {THREADS}=1 would make the steps shorter"
