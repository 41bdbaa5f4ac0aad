"""The velocity deficit: a network's velocity beside its target, in length and direction (VD Figs. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, along_levels
from flowexp.measuring.diagnostics.target import target_velocity


@dataclass(frozen=True)
class LevelNorms(LevelPoint):
    """Lengths at one noise level; a norm is the mean of |.| / sqrt(d) over images of d values.

    velocity, target: of v and v*, which is the velocity of the pair as far as the network can reach it, see
        `target_velocity`. noise, data: of sigma' noise and alpha' data, the two parts of v*; on the linear path these
        are the noise norm and the data norm between which |v| falls in VD Fig. 1 (a).
    ratio: the mean of |v| / |v*|. deficit: 1 - ratio. energy_ratio: E|v|^2 / E|v*|^2 (VD eq. 3).
    cosine: the mean cosine of v and v*.
    best_scale: E<v, v*> / E|v|^2, the factor on v with the least velocity error. It is 1 for the optimal field, whose
        deficit is all variance of v* given xt; only what exceeds 1 is a network that underestimates. best_scale_se: its
        standard error over images, large where v vanishes. ratio_se: that of ratio, NaN of a single image.
    """

    velocity: float
    target: float
    noise: float
    data: float
    ratio: float
    deficit: float
    energy_ratio: float
    cosine: float
    best_scale: float
    best_scale_se: float
    ratio_se: float = 0.0


@torch.no_grad()
def velocity_norms(
    network: Network,
    interpolant: Interpolant,
    images: Tensor,
    levels: Iterable[float],
    seed: int,
    **feed: Unpack[Feed],
) -> Curve[LevelNorms]:
    """`LevelNorms` of a network, (xt, t, label) -> velocity, on `images` (N, C, H, W) at each level.

    feed: labels, batch_size, device, prepare: see `noised_batches`.
    """

    def products(batch: NoisedBatch, level: float) -> Tensor:
        return _products(network, interpolant, batch)

    return Curve(along_levels(products, level_norms, images, levels, seed, **feed))


def _products(network: Network, interpolant: Interpolant, batch: NoisedBatch) -> Tensor:
    nothing = torch.zeros_like(batch.data)
    xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
    velocity = network(xt, batch.t, batch.label)
    noise = target_velocity(network, interpolant, nothing, batch.noise, batch.t)
    return products_of(velocity, noise, target_velocity(network, interpolant, batch.data, nothing, batch.t))


def products_of(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Per image the mean over values of v v, v* v*, v v*, and of the squares of v*'s two parts: (5, B) float64.

    velocity: v, (B, ...). noise, data: the two parts of v*, sigma' noise and alpha' data, shaped like v.
    """
    velocity, noise, data = (part.flatten(1).double() for part in (velocity, noise, data))
    target = noise + data
    pairs = ((velocity, velocity), (target, target), (velocity, target), (noise, noise), (data, data))
    return torch.stack([(first * second).mean(dim=1) for first, second in pairs])


def level_norms(level: float, products: Tensor) -> LevelNorms:
    """The lengths at one level from the `products_of` all images, (5, N)."""
    vv, tt, vt, noise, data = products
    ratios = (vv / tt).sqrt()
    ratio, ratio_se = ratios.mean(), ratios.std() / len(ratios) ** 0.5
    means = [part.sqrt().mean() for part in (vv, tt, noise, data)]
    cosine = (vt / (vv * tt).sqrt()).mean()
    best = vt.mean() / vv.mean()
    best_se = (vt - best * vv).square().mean().sqrt() / (vv.mean() * len(vv) ** 0.5)  # delta method of a ratio
    best_se = best_se if len(vv) > 1 else torch.full_like(best_se, torch.nan)  # no scatter to read
    found = torch.stack([*means, ratio, 1.0 - ratio, vv.mean() / tt.mean(), cosine, best, best_se, ratio_se])
    return LevelNorms(level, *found.tolist())
