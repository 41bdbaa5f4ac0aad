"""Distances between two sets of stored features, block by block: memory is that of one block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from flowexp.flow.distances import squared_distances

ROWS, COLUMNS = 4096, 8192  # one block of distances is 134 MB

Device = torch.device | str


def middle_of(features: Tensor, device: Device = "cpu") -> Tensor:
    """About the mean of features (N, D), (D,): distances of features that are moved there lose less to rounding."""
    return features[:ROWS].to(device).float().mean(0)


def rounding_of(features: Tensor, middle: Tensor) -> Tensor:
    """How far apart two results for a squared distance of features (N, D), moved to `middle`, may lie: (N,)."""
    parts = [(part.to(middle.device).float() - middle).square().sum(1) for part in features.split(ROWS)]
    return 4 * torch.finfo(torch.float32).eps * torch.cat(parts)


def blocks(
    features: Tensor, others: Tensor, device: Device = "cpu", middle: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """(rows, columns, their squared distances) of all pairs, rows first, in full fp32 on `device`.

    middle: where both sets are moved first, (D,); None is that of `others`.
    """
    middle = middle_of(others, device) if middle is None else middle
    with full_fp32():
        for start in range(0, len(features), ROWS):
            rows = slice(start, min(start + ROWS, len(features)))
            own = features[rows].to(device).float()
            for begin in range(0, len(others), COLUMNS):
                columns = slice(begin, min(begin + COLUMNS, len(others)))
                yield rows, columns, squared_distances(own, others[columns].to(device).float(), middle)


def smallest(
    features: Tensor, others: Tensor, num: int, device: Device = "cpu", middle: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For each row of (R, D) its `num` smallest squared distances to (C, D), ascending, and their columns: (R, num).

    middle: see `blocks`.

    Raises:
        ValueError: there are fewer than `num` others.
    """
    if len(others) < num:
        raise ValueError(f"{num} neighbours need at least as many images, got {len(others)}")
    distances = torch.full((len(features), num), torch.inf, device=device)
    places = torch.zeros(len(features), num, dtype=torch.long, device=device)
    for rows, columns, block in blocks(features, others, device, middle):
        best, here = block.topk(min(num, block.shape[1]), dim=1, largest=False)
        merged = torch.cat([distances[rows], best], 1)
        distances[rows], chosen = merged.topk(num, dim=1, largest=False)
        places[rows] = torch.cat([places[rows], here + columns.start], 1).gather(1, chosen)
    return distances, places


def check_pair(samples: Tensor, reference: Tensor) -> None:
    """Raises ValueError unless both are features (N, D) of one length D."""
    if samples.ndim != 2 or reference.ndim != 2 or samples.shape[1] != reference.shape[1]:
        raise ValueError(
            f"samples and reference must be features (N, D) and (M, D), got {tuple(samples.shape)} and "
            f"{tuple(reference.shape)}: take both from the same encoder"
        )


@contextmanager
def full_fp32() -> Iterator[None]:
    """Matrix products in all bits of fp32: TF32's ten would make neighbours of images that are not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
