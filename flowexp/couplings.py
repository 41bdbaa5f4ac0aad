"""Couplings: which noise is paired with which data in a training batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.gathering import gather_rows


@dataclass(frozen=True)
class Coupling(ABC):
    """Pairs the rows of a batch."""

    @abstractmethod
    def pair(self, data: Tensor, noise: Tensor) -> Tensor:
        """The rows of `noise` (B, ...) in the order in which they belong to those of `data` (B, ...)."""


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise is drawn independently of the data (both papers)."""

    def pair(self, data: Tensor, noise: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True)
class MinibatchOT(Coupling):
    """The pairing of least total squared distance within the batch (Tong et al. 2024; Pooladian et al. 2023).

    It straightens paths, and biases the marginals a little, the less the larger the batch.

    Arguments:
        batch: "global" pairs the rows of all processes, each of which solves the whole problem (about 10 ms for 256
            rows, growing with the cube); "local" pairs those of each process, so that the result depends on their
            number.

    Raises:
        ValueError: batch is neither.
    """

    batch: str = "global"

    def __post_init__(self) -> None:
        if self.batch not in ("global", "local"):
            raise ValueError(f"coupling.batch must be global or local, got {self.batch!r}")

    def pair(self, data: Tensor, noise: Tensor) -> Tensor:
        everyones, first = gather_rows(noise) if self.batch == "global" else (noise, 0)
        order = _least_distance(gather_rows(data)[0] if self.batch == "global" else data, everyones)
        return everyones[order[first : first + len(data)]]


def _least_distance(data: Tensor, noise: Tensor) -> Tensor:
    """The row of noise (B, ...) for each row of data (B, ...), int64 (B,)."""
    from scipy.optimize import linear_sum_assignment

    # |x|^2 + |e|^2 does not depend on the pairing: least distance is largest inner product
    with torch.autocast(data.device.type, enabled=False):
        products = data.flatten(1).float() @ noise.flatten(1).float().T
    _, order = linear_sum_assignment(products.cpu().numpy(), maximize=True)
    return torch.as_tensor(order, device=noise.device)
