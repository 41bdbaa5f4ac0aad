"""Couplings: which noise is paired with which data in a training batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


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

    It straightens paths, and biases the marginals a little, the less the larger the batch. Each process pairs its own
    rows, so that the result depends on their number.
    """

    def pair(self, data: Tensor, noise: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        # |x|^2 + |e|^2 does not depend on the pairing: least distance is largest inner product
        with torch.autocast(data.device.type, enabled=False):
            products = data.flatten(1).float() @ noise.flatten(1).float().T
        _, order = linear_sum_assignment(products.cpu().numpy(), maximize=True)
        return noise[torch.as_tensor(order, device=noise.device)]
