"""Mean and covariance of a stream of features, in float64 and without keeping the features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Moments(NamedTuple):  # torchmetrics refuses to return a frozen dataclass
    """What a Frechet distance knows of a set of features.

    mean: (D,) float64. covariance: (D, D) float64, with the divisor count - 1. count: how many vectors.
    """

    mean: Tensor
    covariance: Tensor
    count: int  # type: ignore[assignment]  # a tuple's own `count` is not needed

    def to(self, device: torch.device | str) -> Moments:
        """The same on a device."""
        return self._replace(mean=self.mean.to(device), covariance=self.covariance.to(device))


class FeatureMoments(Metric):
    """Sums of features and of their outer products; `compute` adds the sums of all processes and gives `Moments`.

    Order, batch size and number of processes do not matter, but every process must call `compute`.

    Arguments:
        dim: D, the length of a feature vector.
    """

    is_differentiable = False
    full_state_update = False

    total: Tensor
    outer: Tensor
    count: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds features (B, D)."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must have shape (B, {self.dim}), got {tuple(features.shape)}")
        wide = features.double()
        self.total += wide.sum(0)
        self.outer.addmm_(wide.T, wide)
        self.count += len(wide)

    def compute(self) -> Moments:
        """The moments of everything added so far, on every process.

        Raises:
            ValueError: fewer than two vectors, or one that is not finite. All processes raise, or none does.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"a covariance needs the features of at least 2 images, got {count}: raise num_samples")
        if not torch.isfinite(self.total).all():
            raise ValueError(
                f"among {count} images some have features that are NaN or infinite: the samples have diverged; "
                "lower the learning rate, or sample in more steps"
            )
        mean = self.total / count
        covariance = self.outer.addr(mean, mean, alpha=-count) / (count - 1)
        return Moments(mean, covariance, count)
