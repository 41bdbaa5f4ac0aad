"""Rows of all processes, in the order of the global batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenates `rows` (B, ...) of every process to (world_size * B, ...), without gradient.

    Every process must call it, with as many rows. Returns that tensor and the index at which the rows of this process
    begin; for one process, `rows` and 0.
    """
    if num_processes() == 1:
        return rows, 0
    everyone = rows.new_empty((num_processes() * len(rows), *rows.shape[1:]))
    dist.all_gather_into_tensor(everyone, rows.detach().contiguous())
    return everyone, dist.get_rank() * len(rows)


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """The rows (world_size * B, ...) for a loss that every process computes of all rows, with their gradient.

    Through its rows each process gets a share of the gradient. Lightning takes the mean of the shares where their sum
    is meant, so that they are multiplied by the number of processes.
    """
    everyone, first = gather_rows(rows)
    if everyone is rows:
        return rows
    own = rows.view_as(rows)
    if own.requires_grad:
        own.register_hook(lambda gradient: num_processes() * gradient)
    return torch.cat([everyone[:first], own, everyone[first + len(rows) :]])


def of_first_process(value: Tensor) -> Tensor:
    """`value` as the first process holds it, in place; every process must call it, with the same shape and dtype."""
    if num_processes() > 1:
        dist.broadcast(value, src=0)
    return value


def num_processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
