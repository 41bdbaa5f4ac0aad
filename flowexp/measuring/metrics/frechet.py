"""The Frechet distance between two sets of features, each taken as a Gaussian (Heusel et al., 2017, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from flowexp.measuring.metrics.moments import Moments


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """|mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), a scalar, for means (D,) and covariances (D, D)."""
    apart = (mean1 - mean2).square().sum()
    spread = cov1.trace() + cov2.trace() - 2 * _trace_of_root(cov1, cov2)
    return (apart + spread).clamp_min(0)  # rounding alone makes it negative


def distance_of(one: Moments, other: Moments) -> float:
    """The distance of two sets of features by their moments.

    Raises:
        ValueError: their features have different lengths.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"a Frechet distance needs features of one length, got {len(one.mean)} and {len(other.mean)}: take both "
            "from the same encoder"
        )
    other = other.to(one.mean.device)
    return float(frechet_distance(one.mean, one.covariance, other.mean, other.covariance))


def _trace_of_root(cov1: Tensor, cov2: Tensor) -> Tensor:
    """tr (cov1 cov2)^(1/2): cov1 cov2 has the eigenvalues of S^T cov2 S, which is symmetric, for any S S^T = cov1."""
    root, failed = torch.linalg.cholesky_ex(cov1)
    if failed:  # fewer images than features, or features that never vary
        root = _root_of_low_rank(cov1)
    return torch.linalg.eigvalsh(root.T @ cov2 @ root).clamp_min(0).sqrt().sum()


def _root_of_low_rank(covariance: Tensor) -> Tensor:
    """S (D, R) with S S^T = `covariance` of rank R: Cholesky's columns, at each step that of the largest rest.

    Harbrecht, Peters and Schneider (2012), Algorithm 1. The rest ends at rounding, whose root would count 1e8 fold.
    """
    rest, root = covariance.diagonal().clone(), torch.zeros_like(covariance)
    rounding = rest.sum() * len(rest) * torch.finfo(rest.dtype).eps
    for rank in range(len(rest)):
        if rest.clamp_min(0).sum() <= rounding:
            return root[:, :rank]
        pivot = int(rest.argmax())
        column = covariance[:, pivot] - root[:, :rank] @ root[pivot, :rank]
        root[:, rank] = column / rest[pivot].sqrt()
        rest -= root[:, rank].square()
    return root
