"""Couplings: which noise is paired with which data in a training batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.training.parallel.rows import gather_rows, of_first_process


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

    It straightens paths; data and noise each keep their law. Labels play no part, so noise is no longer independent of
    the class: each class gets the noise on its side. A network that is given the class learns paths which begin there,
    and is sampled from all noise (Cheng and Schwing 2025); with guidance, the field of the class and that of "nothing"
    belong to different laws at t = 1, so their difference is not the class alone.

    Arguments:
        batch: "global" pairs the rows of all processes, which the first process does for all, so that they agree to the
            last bit (about 10 ms for 256 rows, growing with the cube); "local" pairs those of each process, so that the
            result depends on their number.

    Raises:
        ValueError: batch is neither.
    """

    batch: Literal["global", "local"] = "global"

    def __post_init__(self) -> None:
        check_choice("coupling.batch", self.batch, ("global", "local"))

    def pair(self, data: Tensor, noise: Tensor) -> Tensor:
        if self.batch == "local":
            return noise[_least_distance(data, noise)]
        everyones_data, first = gather_rows(data)
        everyones, _ = gather_rows(noise)
        # products of one machine's kernels may differ from another's in the last bit, and then the pairings too
        order = torch.empty(len(everyones), dtype=torch.int64, device=noise.device)
        if first == 0:
            order = _least_distance(everyones_data, everyones)
        order = of_first_process(order)
        return everyones[order[first : first + len(data)]]


def _least_distance(data: Tensor, noise: Tensor) -> Tensor:
    """The row of noise (B, ...) for each row of data (B, ...), int64 (B,)."""
    from scipy.optimize import linear_sum_assignment

    # |x|^2 + |e|^2 does not depend on the pairing: least distance is largest inner product
    with torch.autocast(data.device.type, enabled=False):
        products = data.flatten(1).float() @ noise.flatten(1).float().T
    _, order = linear_sum_assignment(products.cpu().numpy(), maximize=True)
    return torch.as_tensor(order, device=noise.device)
