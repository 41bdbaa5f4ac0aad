"""Mean and covariance of features, in float64: of a stream without keeping it, or of what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

BATCH = 8192  # stored features that are worked on at once: 64 MB of pool-3 features


class Moments(NamedTuple):  # torchmetrics refuses to return a frozen dataclass
    """The statistics of a set of features that a Frechet distance needs.

    mean: (D,) float64. covariance: (D, D) float64, with the divisor count - 1. count: how many vectors; 0 where a file
    from elsewhere lacks.
    """

    mean: Tensor
    covariance: Tensor
    count: int  # type: ignore[assignment]  # replaces `tuple.count`

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

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """torchmetrics takes each result of one element for a scalar: the moments of features of length 1 are none."""
        wrapped = super()._wrap_compute(compute)

        def shaped(*args: Any, **kwargs: Any) -> Any:
            found = wrapped(*args, **kwargs)
            if not isinstance(found, Moments):
                return found
            return found._replace(mean=found.mean.reshape(self.dim), covariance=found.covariance.reshape(self.dim, -1))

        return shaped

    def compute(self) -> Moments:
        """The moments of everything added so far, on every process.

        Raises:
            ValueError: fewer than two vectors, or one that is not finite. All processes raise, or none does.
        """
        return _moments(self.total, self.outer, int(self.count))


def moments_of(features: Tensor, rows: Tensor | None = None, device: torch.device | str = "cpu") -> Moments:
    """Moments of stored `features` (N, D), or of those at `rows` (repeats count), worked on by `device` in batches.

    Raises:
        ValueError: as `FeatureMoments.compute`.
    """
    chosen = torch.arange(len(features)) if rows is None else rows.cpu()
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
    outer = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=device)
    for batch in chosen.split(BATCH):
        wide = features[batch].to(device).double()
        total += wide.sum(0)
        outer.addmm_(wide.T, wide)
    return _moments(total, outer, len(chosen))


def _moments(total: Tensor, outer: Tensor, count: int) -> Moments:
    if count < 2:
        raise ValueError(f"a covariance needs the features of at least 2 images, got {count}: raise num_samples")
    refuse_infinite(total, count)
    mean = total / count
    return Moments(mean, outer.addr(mean, mean, alpha=-count) / (count - 1), count)


def refuse_infinite(sums: Tensor, count: int) -> None:
    """Raises ValueError where `sums` (D,) of the features of `count` images are not finite."""
    if not torch.isfinite(sums).all():
        raise ValueError(
            f"among {count} images some have features that are NaN or infinite: the samples have diverged; "
            "lower the learning rate, or sample in more steps"
        )
