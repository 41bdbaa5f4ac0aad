"""How well the velocity is known at each noise level: in training, and on given images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, along_levels
from flowexp.measuring.diagnostics.target import target_velocity


@dataclass(frozen=True)
class BinLoss:
    """t: the middle of a bin of noise levels. loss: the mean error in it, None without errors. count: of errors."""

    t: float
    loss: float | None
    count: int


class NoiseLevelSums:
    """The mean error in equal bins of t, summed on the device: `update` never waits for it.

    Arguments:
        num_bins: bins in [0, 1].
        device: where the errors are.
    """

    def __init__(self, num_bins: int = 20, device: torch.device | str = "cpu") -> None:
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        self.num_bins = num_bins
        self.sums = torch.zeros(num_bins, 2, dtype=torch.float64, device=device)  # of errors, and of ones

    def update(self, t: Tensor, error: Tensor) -> None:
        """Adds the errors (R,) made at noise levels t (R,)."""
        bins = (t * self.num_bins).long().clamp_(0, self.num_bins - 1)
        error = error.detach().double()
        self.sums.index_add_(0, bins, torch.stack([error, torch.ones_like(error)], dim=1))

    def reset(self) -> None:
        """Forgets all errors."""
        self.sums.zero_()

    def compute(self) -> list[BinLoss]:
        """The mean of every bin, from low to high noise."""
        sums = zip(bin_centres(self.num_bins), self.sums.tolist(), strict=True)
        return [BinLoss(t, total / count if count else None, int(count)) for t, (total, count) in sums]


def bin_centres(num_bins: int) -> list[float]:
    """The middles of equal bins in [0, 1]."""
    return [(i + 0.5) / num_bins for i in range(num_bins)]


@dataclass(frozen=True)
class LevelVelocity:
    """A network's velocity v beside its target v* (`target_velocity`) at one noise level, averaged over images.

    loss: |v - v*|^2 / d, for images of d values. velocity_rms, target_rms: |v| / sqrt(d) and |v*| / sqrt(d).
    velocity_ratio: |v| / |v*|, which the velocity deficit makes smaller than 1 (VD Fig. 1).
    """

    loss: float
    velocity_rms: float
    target_rms: float
    velocity_ratio: float


@torch.no_grad()
def loss_by_noise_level(
    network: Network,
    interpolant: Interpolant,
    images: Tensor,
    levels: Iterable[float],
    seed: int,
    **feed: Unpack[Feed],
) -> dict[float, LevelVelocity]:
    """The velocity error on `images` (N, C, H, W) at each level, with the same noise whatever was trained and how.

    network: (xt, t, label) -> velocity. feed: labels, batch_size, device, prepare: see `noised_batches`.
    """

    def compare(batch: NoisedBatch, level: float) -> Tensor:
        return _compare(network, interpolant, batch)

    def mean(level: float, parts: Tensor) -> tuple[float, LevelVelocity]:
        return level, LevelVelocity(*parts.mean(dim=1).tolist())

    return dict(along_levels(compare, mean, images, levels, seed, **feed))


def _compare(network: Network, interpolant: Interpolant, batch: NoisedBatch) -> Tensor:
    """The four numbers of `LevelVelocity` for each image, (4, B) float64."""
    xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
    velocity = network(xt, batch.t, batch.label).flatten(1).double()
    target = target_velocity(network, interpolant, batch.data, batch.noise, batch.t).flatten(1).double()
    error = (velocity - target).square().mean(dim=1)
    velocity_rms, target_rms = (v.square().mean(dim=1).sqrt() for v in (velocity, target))
    return torch.stack([error, velocity_rms, target_rms, velocity_rms / target_rms])
