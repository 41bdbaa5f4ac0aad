"""The kernel distance (KID, Binkowski et al., 2018, eq. 4): the unbiased squared MMD with a cubic kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from flowexp.measuring.metrics.inception_score import Score
from flowexp.measuring.metrics.neighbours import Device, check_pair

BLOCK = 4096


def kernel_distance(
    samples: Tensor,
    reference: Tensor,
    generator: torch.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
    device: Device = "cpu",
) -> Score:
    """Mean and standard deviation of the unbiased estimate over random subsets, as torchmetrics and torch-fidelity.

    samples: (N, D). reference: (M, D). The kernel is (xy / D + 1)^3. Works in float64, which torchmetrics does not.

    Raises:
        ValueError: other shapes, or a set smaller than a subset.
    """
    check_pair(samples, reference)
    if min(len(samples), len(reference)) < subset_size or subset_size < 2 or subsets < 1:
        raise ValueError(
            f"KID needs sets at least as large as its subsets of {subset_size} (2 or more), got {len(samples)} samples "
            f"and {len(reference)} reference images: lower kid_subset_size"
        )
    found = []
    for _ in range(subsets):
        of_reference = reference[torch.randperm(len(reference), generator=generator)[:subset_size]]
        of_samples = samples[torch.randperm(len(samples), generator=generator)[:subset_size]]
        found.append(full_kernel_distance(of_samples, of_reference, device))
    estimates = torch.tensor(found, dtype=torch.float64)
    return Score(float(estimates.mean()), float(estimates.std(correction=0)))


def full_kernel_distance(samples: Tensor, reference: Tensor, device: Device = "cpu") -> float:
    """The unbiased estimate from all pairs of `samples` (N, D) and `reference` (M, D); it may be below 0.

    (sum over i != j of k(x_i, x_j)) / (N (N - 1)) + the same for y - 2 mean k(x_i, y_j). No subset is drawn, so nothing
    is random. Memory is that of one block of pairs; time grows with the square of the sets.

    Raises:
        ValueError: other shapes, or a set of fewer than two.
    """
    check_pair(samples, reference)
    n, m = len(samples), len(reference)
    if min(n, m) < 2:
        raise ValueError(f"KID needs at least 2 images in each set, got {n} samples and {m} reference images")
    within, within_reference = _within(samples, device), _within(reference, device)
    between = sum(_kernel(own, other, device) for own in samples.split(BLOCK) for other in reference.split(BLOCK))
    return float(within / (n * (n - 1)) + within_reference / (m * (m - 1)) - 2 * between / (n * m))


def _within(features: Tensor, device: Device) -> Tensor:
    """The sum over all ordered pairs of different rows; each pair of blocks is worked on once."""
    parts = features.split(BLOCK)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for place, own in enumerate(parts):
        of_itself = (own.to(device).double().square().sum(1) / own.shape[1] + 1) ** 3
        total += _kernel(own, own, device) - of_itself.sum()
        for other in parts[place + 1 :]:
            total += 2 * _kernel(own, other, device)
    return total


def _kernel(features: Tensor, others: Tensor, device: Device) -> Tensor:
    """The kernel summed over all pairs of two blocks."""
    products = features.to(device).double() @ others.to(device).double().T
    return ((products / features.shape[1] + 1) ** 3).sum()
