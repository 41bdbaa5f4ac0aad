"""Work shared between the processes of a run, so that every process makes the same number of network calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

Item = TypeVar("Item")
Key = TypeVar("Key")


def start_processes(accelerator: str, num: int) -> torch.device:
    """Starts as many more processes of this command as make `num`, waits for them, and gives this one its device.

    Where srun or torchrun started them, on one machine or several, these are the `num`. accelerator: auto, cpu or cuda.
    On a CPU the processes share it.

    Raises:
        ValueError: fewer than one process.
    """
    if num < 1:
        raise ValueError(f"devices must be at least 1, got {num}")
    num_nodes = int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("GROUP_WORLD_SIZE") or 1)
    fabric = Fabric(accelerator=accelerator, devices=num // num_nodes, num_nodes=num_nodes, strategy="ddp")
    fabric.launch()
    return fabric.device


def rank_and_world_size() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside of a distributed run."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def share(items: Sequence[Item]) -> list[Item]:
    """Every world_size-th item, from the rank-th on.

    Where the items do not divide evenly, the last is handed out again: a network sharded over processes hangs when one
    of them calls it less often. `num_own` is the number of a share that are no repeats.
    """
    rank, world_size = rank_and_world_size()
    rounds = -(-len(items) // world_size)
    return [items[min(i * world_size + rank, len(items) - 1)] for i in range(rounds)]


def num_own(num_items: int) -> int:
    """How many of `num_items` fall to this process."""
    rank, world_size = rank_and_world_size()
    return len(range(rank, num_items, world_size))


def collect(results: dict[Key, Any]) -> dict[Key, Any]:
    """The results of all processes, on every process; all must call it."""
    if rank_and_world_size()[1] == 1:
        return results
    parts: list[dict[Key, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, results)
    return {key: value for part in parts for key, value in part.items()}
