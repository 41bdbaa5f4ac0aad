"""Whether |v*|^2 is the sum of its parts: inner products of data and noise (VD eq. 4 and appendix D.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.measuring.diagnostics.noised import Prepare, noised_batches


@dataclass(frozen=True)
class Spread:
    """Mean, 99th percentile and maximum of magnitudes."""

    mean: float
    percentile_99: float
    maximum: float


@dataclass(frozen=True)
class CrossTerms:
    """Normalised inner products of `num_pairs` pairs of data and noise with `dim` values each.

    relative: 2 |<data, noise>| / (|data|^2 + |noise|^2), the part of |noise - data|^2 that eq. 4 leaves out. Its mean
        given xt, at any level of the linear path, is no larger than its maximum (VD D.1).
    cosine: |<data, noise>| / (|data| |noise|).
    expected_cosine: its mean over noise, Gamma(d/2) / (sqrt(pi) Gamma((d + 1)/2)) whatever the data.
    """

    relative: Spread
    cosine: Spread
    expected_cosine: float
    num_pairs: int
    dim: int

    def rows(self) -> list[dict[str, float | str]]:
        """The statistics as a table."""
        return [{"magnitude": name, **vars(getattr(self, name))} for name in ("relative", "cosine")]


def cross_terms(
    images: Tensor,
    seed: int,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    prepare: Prepare | None = None,
) -> CrossTerms:
    """The cross terms of `images` (N, ...), each with one noise. No network takes part. prepare: see `noised_batches`.

    The text of VD that we have lost the formula of its magnitude r; `relative` is our reading.
    """
    relative, cosine = [], []
    for batch in noised_batches(images, 1.0, seed, batch_size, device, prepare):
        data, noise = batch.data.flatten(1).double(), batch.noise.flatten(1).double()
        inner = (data * noise).sum(dim=1).abs()
        relative.append(2 * inner / (data.square().sum(dim=1) + noise.square().sum(dim=1)))
        cosine.append(inner / (data.norm(dim=1) * noise.norm(dim=1)))
    dim = images[0].numel()
    return CrossTerms(_spread(relative), _spread(cosine), expected_cosine(dim), len(images), dim)


def expected_cosine(dim: int) -> float:
    """E|cos| of a fixed vector and an isotropic one of `dim` values: about sqrt(2 / (pi dim))."""
    half = torch.tensor(dim / 2, dtype=torch.float64)
    return float((torch.lgamma(half) - torch.lgamma(half + 0.5)).exp() / torch.pi**0.5)


def _spread(parts: list[Tensor]) -> Spread:
    values = torch.cat(parts).cpu()  # quantile sorts, and devices limit its size
    rank = max(0, -(-99 * len(values) // 100) - 1)  # the smallest value that 99 % do not exceed
    return Spread(float(values.mean()), float(values.sort().values[rank]), float(values.max()))
