"""Few numbers of many: the space in which distances between sets of images are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowexp.flow.randomness import keyed_generator


@dataclass(frozen=True, eq=False)
class Projection:
    """From images (B, ...) of `dim` values to vectors (B, k): all values, or a fixed random k-dimensional subspace.

    The rows of `matrix` (k, dim) are orthogonal and sqrt(dim / k) long, so that |project(x)|^2 is |x|^2 on average;
    None keeps all values. A covariance of 4096 numbers needs far more than 4096 samples (VD B.3 takes thousands).
    """

    dim: int
    matrix: Tensor | None = None

    @property
    def size(self) -> int:
        """k, the length of a projected vector."""
        return self.dim if self.matrix is None else len(self.matrix)

    @property
    def noise_variance(self) -> float:
        """Variance of each number of a projected standard Gaussian; they are uncorrelated."""
        return self.dim / self.size

    def __call__(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return flat if self.matrix is None else flat @ self.matrix.to(flat).T

    def protocol(self) -> dict[str, Any]:
        """The protocol of a number that was measured in this space."""
        kind = "all values" if self.matrix is None else "fixed random orthogonal projection"
        return {"space": kind, "dim": self.dim, "projected_dim": self.size}


def create_projection(dim: int, max_dim: int | None = 256, seed: int = 0) -> Projection:
    """All of `dim` values where there are at most `max_dim` of them (None: always), else a projection to `max_dim`.

    The subspace is uniform among all of its dimension and decided by (seed, dim, max_dim) alone.
    """
    if max_dim is None or dim <= max_dim:
        return Projection(dim)
    if max_dim < 1:
        raise ValueError(f"max_dim must be at least 1, got {max_dim}")
    gaussian = torch.randn(dim, max_dim, dtype=torch.float64, generator=keyed_generator(seed, dim, max_dim))
    frame, triangle = torch.linalg.qr(gaussian)
    return Projection(dim, (frame * triangle.diagonal().sign()).T.contiguous() * (dim / max_dim) ** 0.5)
