"""What a Frechet distance would be with infinitely many samples, and how sure the measured one is.

Both need the features themselves: N x D x 4 bytes, 410 MB for 50,000 of Inception's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.measuring.metrics.frechet import frechet_distance
from flowexp.measuring.metrics.moments import Moments, moments_of
from flowexp.measuring.metrics.neighbours import Device


@dataclass(frozen=True)
class Extrapolation:
    """A line through distances at several sizes, d = value + slope / size.

    value: the distance at infinite size. error: its standard error, from the scatter about the line (the subsets share
    samples, so the real one is larger). slope: the bias of N samples is slope / N. sizes, distances: what was fitted.
    """

    value: float
    error: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True)
class ConfidenceInterval:
    """Where a distance lies with the given confidence, as far as the choice of samples decides it."""

    low: float
    high: float
    confidence: float


def frechet_infinity(
    features: Tensor,
    reference: Moments,
    generator: torch.Generator,
    num_sizes: int = 15,
    smallest: int | None = None,
    device: Device = "cpu",
) -> Extrapolation:
    """FID_inf (Chong and Forsyth, 2020, section 3): the intercept of a least-squares line over 1 / N.

    The distance of N samples is too large by about a constant / N. Sizes are evenly spaced from `smallest` (None: a
    tenth of all, as their 5000 of 50,000) to all samples; each has a random subset without repeats.

    features: (N, D) of the samples. reference: of the dataset; its finite size is not corrected for.

    Raises:
        ValueError: fewer than ten sizes, or samples too few for as many.
    """
    sizes = _sizes(len(features), num_sizes, smallest)
    reference = reference.to(device)
    rows = [torch.randperm(len(features), generator=generator)[:size] for size in sizes]
    distances = [_distance(features, chosen, reference, device) for chosen in rows]
    return _fit_line(sizes, distances)


def _sizes(num: int, num_sizes: int, smallest: int | None) -> list[int]:
    first = max(2, num // 10) if smallest is None else smallest
    check_sizes(num_sizes)
    if first < 2 or num - first < num_sizes - 1:
        raise ValueError(
            f"an extrapolation needs {num_sizes} sizes between {first} and the number of samples, got {num} samples: "
            "raise num_samples"
        )
    return torch.linspace(first, num, num_sizes, dtype=torch.float64).round().long().tolist()


def check_sizes(num_sizes: int) -> None:
    """Raises ValueError for fewer than the ten sizes that a line should have."""
    if num_sizes < 10:
        raise ValueError(f"an extrapolation needs at least 10 sizes, got {num_sizes}")


def _fit_line(sizes: list[int], distances: list[float]) -> Extrapolation:
    y = torch.tensor(distances, dtype=torch.float64)
    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    apart = x - x.mean()
    slope = (apart * y).sum() / apart.square().sum()
    value = y.mean() - slope * x.mean()
    variance = (y - value - slope * x).square().sum() / (len(y) - 2)
    error = (variance * (1 / len(y) + x.mean().square() / apart.square().sum())).sqrt()
    return Extrapolation(float(value), float(error), float(slope), tuple(sizes), tuple(distances))


def frechet_interval(
    features: Tensor,
    reference: Moments,
    generator: torch.Generator,
    num_resamples: int = 100,
    confidence: float = 0.95,
    device: Device = "cpu",
) -> ConfidenceInterval:
    """A bootstrap interval of the Frechet distance of samples with `features` (N, D), for a fixed reference.

    Resampling with repeats adds a bias (a resample holds 63 % of the samples), so percentiles of the
    resampled distances lie too high: their spread about their mean is put about the measured distance instead.

    Raises:
        ValueError: fewer than 20 resamples, or a confidence outside (0, 1).
    """
    check_interval(num_resamples, confidence)
    reference, num = reference.to(device), len(features)
    measured = _distance(features, torch.arange(num), reference, device)
    draws = [torch.randint(num, (num,), generator=generator) for _ in range(num_resamples)]
    found = torch.tensor([_distance(features, rows, reference, device) for rows in draws], dtype=torch.float64)
    tail = (1 - confidence) / 2
    low, high = (found - found.mean()).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return ConfidenceInterval(max(0.0, measured + low), measured + high, confidence)


def check_interval(num_resamples: int, confidence: float) -> None:
    """Raises ValueError for fewer than 20 resamples, or a confidence that is no share."""
    is_share = isinstance(confidence, int | float) and 0 < confidence < 1
    if num_resamples < 20 or not is_share:
        raise ValueError(
            f"an interval needs at least 20 resamples and a confidence in (0, 1), got {num_resamples}, {confidence}"
        )


def _distance(features: Tensor, rows: Tensor, reference: Moments, device: Device) -> float:
    own = moments_of(features, rows, device)
    return float(frechet_distance(reference.mean, reference.covariance, own.mean, own.covariance))
