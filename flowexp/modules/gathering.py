"""Rows of all processes, in the order of the global batch."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenates `rows` (B, F) of every process to (world_size * B, F), without gradient.

    Returns that tensor and the index at which this process's own rows begin; for one process, `rows` and 0.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows, 0
    everyone = rows.new_empty((dist.get_world_size() * len(rows), *rows.shape[1:]))
    dist.all_gather_into_tensor(everyone, rows.contiguous())
    return everyone, dist.get_rank() * len(rows)
