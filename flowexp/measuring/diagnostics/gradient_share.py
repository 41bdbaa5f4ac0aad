"""Which noise levels the gradient of the velocity loss comes from (LCF Fig. 1 b and section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.losses import velocity_error
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, noised_batches
from flowexp.measuring.diagnostics.target import target_velocity

Gradient = list[Tensor]


@dataclass(frozen=True)
class LevelGradient(LevelPoint):
    """The gradient g = weight * grad loss that one noise level adds to the whole one, G = sum g.

    loss: mean error of the velocity at the level, beside `target_velocity`. norm: |g|. share: |g| / sum |g|; the shares
    sum to 1.
    along: <g, G> / |G|^2, the part of G that the level makes; these sum to 1 too, and one that fights G is negative.
    batch_norm: weight times the root mean square norm of one batch's gradient, which has the noise that a step has.
    """

    loss: float
    norm: float
    share: float
    along: float
    batch_norm: float


def gradient_share(
    network: Network,
    parameters: Iterable[Tensor],
    interpolant: Interpolant,
    images: Tensor,
    levels: Sequence[float],
    seed: int,
    weights: Sequence[float] | None = None,
    **feed: Unpack[Feed],
) -> Curve[LevelGradient]:
    """The gradient of the velocity error of given images, split by noise level; no `.grad` is touched.

    Every level is run twice, once for G and once against it, so that two gradients are in memory and not one per level.

    parameters: of the network; frozen ones are left out. images: as stored, (N, C, H, W).
    weights: how often training draws each level (a density at the levels, of any scale); None is uniform.
    feed: labels, batch_size, device, prepare: see `noised_batches`.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    weight = _normalised(weights, len(levels))

    def gradient(level: float) -> tuple[Gradient, float, float]:
        batches = noised_batches(images, level, seed, **feed)
        return _mean_gradient(network, wanted, interpolant, batches, len(images))

    whole = [torch.zeros_like(parameter) for parameter in wanted]
    for level, part in zip(levels, weight, strict=True):
        torch._foreach_add_(whole, gradient(level)[0], alpha=part)
    energy, found = _dot(whole, whole), []
    for level, part in zip(levels, weight, strict=True):
        own, loss, batch_norm = gradient(level)
        norm, along = part * _dot(own, own) ** 0.5, part * _dot(own, whole)
        found.append((level, loss, norm, along / energy if energy else float("nan"), part * batch_norm))
    total = sum(norm for _, _, norm, _, _ in found) or float("nan")
    return Curve(LevelGradient(t, loss, norm, norm / total, along, batch) for t, loss, norm, along, batch in found)


def _normalised(weights: Sequence[float] | None, num: int) -> list[float]:
    weights = [1.0] * num if weights is None else list(weights)
    if len(weights) != num or min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"weights must be {num} numbers >= 0, one for each level and not all 0, got {weights}")
    return [weight / sum(weights) for weight in weights]


@torch.enable_grad()
def _mean_gradient(
    network: Network, parameters: Gradient, interpolant: Interpolant, batches: Iterable[NoisedBatch], num_images: int
) -> tuple[Gradient, float, float]:
    """The gradient of the mean error of all images, that error, and the root mean square norm of a batch's gradient."""
    mean, loss, squares, num_batches = [torch.zeros_like(parameter) for parameter in parameters], 0.0, 0.0, 0
    for batch in batches:
        xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
        target = target_velocity(network, interpolant, batch.data, batch.noise, batch.t)
        error = velocity_error(network(xt, batch.t, batch.label), target).mean()
        gradient = list(torch.autograd.grad(error, parameters, allow_unused=True, materialize_grads=True))
        part = len(batch.data) / num_images
        torch._foreach_add_(mean, gradient, alpha=part)
        loss += part * error.item()
        squares += _dot(gradient, gradient)
        num_batches += 1
    return mean, loss, (squares / num_batches) ** 0.5


def _dot(first: Gradient, second: Gradient) -> float:
    return float(sum((a.double() * b.double()).sum() for a, b in zip(first, second, strict=True)))
