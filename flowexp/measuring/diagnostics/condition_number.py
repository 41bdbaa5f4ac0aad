"""The local condition number kappa_E of velocity regression (LCF Proposition 1): in closed form and measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.derivatives import directional_derivative
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, along_levels, further_noise
from flowexp.measuring.diagnostics.target import target_velocity


def condition_number(
    interpolant: Interpolant, t1: Tensor, t2: Tensor | None = None, data_energy: float = 1.0
) -> Tensor:
    """kappa_E(t1, t2; data), the closed form of LCF eq. 24, (B,) float64.

    sqrt((d_alpha'^2 e + s1'^2 + s2'^2) / (d_alpha^2 e + s1^2 + s2^2)), with e = |data|^2 / d, s = sigma and d_alpha the
    difference of alpha between the two levels. Eqs. 22 to 24 print sigma where the velocity has sigma'; the primes
    follow from eq. 21. At t1 = t2 the data drops out and sigma' / sigma remains (eqs. 6 and 20).

    t1, t2: noise levels (B,); no t2 is t2 = t1. data_energy: e, the mean square of the data's values.
    """
    first = t1.double()
    second = first if t2 is None else t2.double()
    target = (interpolant.alpha_dot(first) - interpolant.alpha_dot(second)).square() * data_energy
    target = target + interpolant.sigma_dot(first).square() + interpolant.sigma_dot(second).square()
    xt = (interpolant.alpha(first) - interpolant.alpha(second)).square() * data_energy
    xt = xt + interpolant.sigma(first).square() + interpolant.sigma(second).square()
    return (target / xt).sqrt()


@dataclass(frozen=True)
class LevelCondition(LevelPoint):
    """sqrt(E|dv|^2 / E|dx|^2) at one level, over pairs of states of that level.

    noise_*: the pair is one image with two noises (LCF eq. 18 at t1 = t2). data_*: two images with one noise.
    *_exact: closed form of the target. *_target: of the target, measured. *_network: of the network's velocity. The
    target is v* as far as the network can reach it, see `target_velocity`; of v* itself noise_exact is
    `condition_number`, and data_exact |alpha'| / alpha.
    *_local: of the network's Jacobian along the pair's difference, sqrt(E|J dx|^2 / E|dx|^2): a pair infinitely close.
    """

    noise_exact: float
    noise_target: float
    noise_network: float
    noise_local: float
    data_exact: float
    data_target: float
    data_network: float
    data_local: float


@torch.no_grad()
def measure_condition(
    network: Network,
    interpolant: Interpolant,
    images: Tensor,
    levels: Iterable[float],
    seed: int,
    **feed: Unpack[Feed],
) -> Curve[LevelCondition]:
    """How much velocities differ where states differ: what the target demands, and what the network does.

    Four passes of the network and two JVPs per image and level. The second image of a data pair is the next one of its
    batch, under the label of the first. Where states cannot differ (sigma = 0, or alpha = 0) a ratio is inf or nan,
    and the JVP is taken along the difference of the noise or of the data itself.

    images: (N, C, H, W), N >= 2. feed: labels, batch_size, device, prepare: see `noised_batches`.
    """
    if len(images) < 2:
        raise ValueError(f"pairs need at least 2 images, got {len(images)}")

    def energies(batch: NoisedBatch, level: float) -> Tensor:
        return _energies(network, interpolant, batch, further_noise(batch, level, seed, 1))[..., None]

    def point(level: float, parts: Tensor) -> LevelCondition:
        return _point(level, parts.sum(dim=-1), _demand(network, interpolant, level))

    return Curve(along_levels(energies, point, images, levels, seed, **feed))


def _energies(network: Network, interpolant: Interpolant, batch: NoisedBatch, other_noise: Tensor) -> Tensor:
    """Sums of |dx|^2, |dv*|^2, |dv|^2, |direction|^2 and |J direction|^2, (2, 5): of noise pairs, of data pairs."""
    other_data = batch.data.roll(-1, dims=0)
    noise_pair = _pair(network, interpolant, batch, batch.data, other_noise, batch.noise - other_noise)
    data_pair = _pair(network, interpolant, batch, other_data, batch.noise, batch.data - other_data)
    return torch.stack([noise_pair, data_pair])


def _pair(
    network: Network, interpolant: Interpolant, batch: NoisedBatch, data: Tensor, noise: Tensor, direction: Tensor
) -> Tensor:
    pairs = ((batch.data, batch.noise), (data, noise))
    first, second = (interpolant.interpolate(*pair, batch.t) for pair in pairs)
    target, other = (target_velocity(network, interpolant, *pair, batch.t) for pair in pairs)
    velocity = network(first, batch.t, batch.label) - network(second, batch.t, batch.label)
    change = directional_derivative(lambda x: network(x, batch.t, batch.label), first, direction)
    return torch.stack(
        [v.double().square().sum() for v in (first - second, target - other, velocity, direction, change)]
    )


def _demand(network: Network, interpolant: Interpolant, level: float) -> list[float]:
    """Closed form of the target's ratio along noise and along data: its coefficient of either over that of the state.

    |sigma'| / sigma and |alpha'| / alpha where the network can reach v*.
    """
    t = torch.tensor([level, level], dtype=torch.float64)
    data, noise = torch.eye(2, dtype=torch.float64)
    of_state = interpolant.interpolate(data, noise, t)
    of_data, of_noise = (target_velocity(network, interpolant, data, noise, t).abs() / of_state).tolist()
    return [of_noise, of_data]


def _point(level: float, energies: Tensor, exact: list[float]) -> LevelCondition:
    dx, target, velocity, direction, change = energies.sqrt().unbind(dim=1)
    noise, data = torch.stack([target / dx, velocity / dx, change / direction], dim=1).tolist()
    return LevelCondition(level, exact[0], noise[0], noise[1], noise[2], exact[1], data[0], data[1], data[2])
